"""Random grants under pressure, executed on real memory.

The conformance suite's driver decides what happens and checks its model of memory at every step;
here the same grants move real bytes, to host memory and back too, which are read back through the
layout at every step, and what the kernel says is resident must be what the allocator says is held.
"""

from collections import Counter

import numpy as np
import pytest

from allocators.base import Demand, Prompt
from harness.conformance import drive, steps, trial
from kernels.memory.host_space import HostSpace
from tests.kernels.memory.cases import ALLOCATORS, RealMemory

APART = ("virtual-2MiB", "virtual-copy-tail")
MODES = [(name, {}) for name in ALLOCATORS if name not in APART] + [
    ("virtual-alias", {"background": False}),
    ("virtual-copy-no-host", {"packing": "dense"}),
    ("virtual-copy-tail", {"packing": "dense"}),
    ("virtual-copy", {"mode": "demand"}),
]
#: each of its options is in one of those above
MODES_TOGETHER = [("virtual-copy-no-host", {"mode": "demand", "packing": "dense"})]


def cases():
    for name, options in MODES + MODES_TOGETHER:
        marks = [pytest.mark.further] if (name, options) in MODES_TOGETHER else []
        identity = "-".join([name, *map(str, options.values())])
        yield pytest.param(name, options, id=identity, marks=marks)


@pytest.fixture
def real_memory(monkeypatch):
    """Let a trial use real memory; close whatever it opened."""
    monkeypatch.setattr(steps, "SlotMemory", RealMemory)
    monkeypatch.setattr(RealMemory, "made", [])
    yield RealMemory
    for backing in RealMemory.made:
        backing.close()


@pytest.mark.parametrize(("name", "options"), cases())
def test_every_live_token_reads_back_and_resident_memory_is_what_is_mapped(
    real_memory, monkeypatch, name, options
):
    monkeypatch.setattr(real_memory, "options", options)
    # On demand all mappings of the process are looked through at every step; in 3 all happens.
    seeds = (3,) if options.get("mode") == "demand" else (1, 2)
    counts = sum((drive(ALLOCATORS[name], seed, 70).counts for seed in seeds), Counter())
    assert counts["refusals"], "no pressure"
    assert counts["copies"] or name == "paged-1"
    if name not in ("virtual-copy-no-host", "virtual-copy-tail"):
        assert counts["resumes"]
        assert counts["suspend_refusals"]
        assert counts["resume_refusals"]
    if name == "paged-offload":
        assert counts["saves"]
        assert counts["fetches"]
    if name.startswith("virtual"):
        assert counts["maps"]
        assert counts["unmaps"]
        if name != "virtual-plain":
            assert counts["beside_maps"]
            assert counts["beside_unmaps"]


def test_admission_copies_after_the_prompt_is_computed(real_memory):
    """A group's copies read what was written between `map` and `copy`."""
    pair = trial.Trial(ALLOCATORS["virtual-copy"])
    assert pair.admit(np.arange(3), Prompt(20), Demand(20, 10))
    assert pair.grow(np.arange(3), 5)


@pytest.mark.parametrize("name", ["paged-7", "contiguous-grow", "virtual-alias"])
@pytest.mark.parametrize("skipped", ["save", "fetch"])
def test_swaps_that_do_not_happen_are_noticed(real_memory, monkeypatch, name, skipped):
    monkeypatch.setattr(HostSpace, skipped, lambda self, grant: None)
    with pytest.raises(AssertionError, match=r"differ"):
        drive(ALLOCATORS[name], 2, steps=90)


def test_pages_of_two_mebibytes(real_memory):
    """The same with the page size of CUDA's driver, in fewer steps: each of them reads 50 MB."""
    done = drive(ALLOCATORS["virtual-2MiB"], 1, steps=25)
    assert done.counts["maps"]
    assert done.counts["unmaps"]
