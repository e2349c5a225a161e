"""Where the public traces are, for the tests that read them."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def shared_file():
    """A function from a name under the shared data folder to its path; skips where it is absent."""
    root = Path(os.environ.get("KV_HARNESS_SHARED", REPOSITORY.parent / "shared"))

    def find(name):
        path = root / "data" / name
        if not path.exists():
            pytest.skip(f"public trace {name} is not at hand; set KV_HARNESS_SHARED")
        return path

    return find
