"""Each allocator takes exactly the decisions it took when its counts were last looked at."""

import json

import pytest

from tests.allocators import golden

EXPECTED = json.loads(golden.FILE.read_text())


def test_there_are_counts_for_every_allocator():
    assert list(EXPECTED) == list(golden.ALLOCATORS)


@pytest.mark.parametrize("name", golden.ALLOCATORS)
def test_the_counts_are_the_golden_ones(name):
    assert golden.count(golden.ALLOCATORS[name]()) == EXPECTED[name]


def test_the_schedule_presses():
    for name, counts in EXPECTED.items():
        refused = counts.get("refused_admit", 0) + counts.get("refused_grow", 0)
        assert refused > 0, name
        assert counts["copies"] > 0 or name == "paged_1", name
