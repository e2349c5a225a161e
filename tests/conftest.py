"""What all tests share.

Hypothesis draws the same examples each time, unless HYPOTHESIS_PROFILE=explore is set.  Else it
would also draw numbers that it reads in the source of our modules, of those that are imported by
then: so what a test draws, and what happens in its stories, would depend on which ran before it.
"""

import gc
import os

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

import harness  # noqa: F401 - before torch: how its threads wait is set there
from tests.places import SHARED_DATA

# Workers share the cores: threads beyond them only wait for each other, a fifth of the time of a
# small model.  Read by OpenMP when torch is loaded, here and in processes that a test starts.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "steady")
settings.load_profile(PROFILE)
if PROFILE == "steady":
    # No setting says so; should the name ever change, this fails at once.
    pytest.MonkeyPatch().setattr(
        providers, "_get_local_constants", lambda: providers._local_constants
    )

# What modules and 5,400 collected tests are made of stays to the end, and looking through it again
# and again for garbage was a tenth of the time; the command does the same (`harness.__main__`).
gc.set_threshold(50_000, 20, 20)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Let no search for garbage look at what has been made so far."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_file():
    """A function from a name among the public data to its path; skips where it is absent."""

    def find(name):
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"{name} of the public data is not at hand; set KV_HARNESS_SHARED")
        return path

    return find
