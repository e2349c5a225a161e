"""The engine's runs are, to the count, those that were last looked at."""

import json

import pytest

from tests.engine import golden

EXPECTED = json.loads(golden.FILE.read_text())


def test_there_are_counts_for_every_run():
    assert list(EXPECTED) == list(golden.RUNS)


@pytest.mark.parametrize("name", golden.RUNS)
def test_the_counts_are_the_golden_ones(name):
    assert golden.count(*golden.RUNS[name]) == EXPECTED[name]


def test_the_runs_press():
    for name, counts in EXPECTED.items():
        assert counts["saturated_steps"], name
        if name.startswith(("paged", "virtual")) and name.endswith(("continuous", "orca")):
            assert counts["preemptions"], name
        if "greedy" not in name and not name.startswith("paged_1 "):
            assert counts["copied_bytes"], name
