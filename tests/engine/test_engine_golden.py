"""The engine's runs are, to the count, those that were last looked at."""

import importlib.util
import json
from pathlib import Path

import pytest

# By path: each folder of tests has a `golden` of its own.
spec = importlib.util.spec_from_file_location(
    "engine_golden", Path(__file__).with_name("golden.py")
)
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
EXPECTED = json.loads(golden.FILE.read_text())


def test_there_are_counts_for_every_run():
    assert list(EXPECTED) == list(golden.RUNS)


@pytest.mark.parametrize("name", golden.RUNS)
def test_the_counts_are_the_golden_ones(name):
    assert golden.count(*golden.RUNS[name]) == EXPECTED[name]


def test_the_runs_press():
    for name, counts in EXPECTED.items():
        assert counts["saturated_steps"], name
        if name.startswith(("paged", "virtual")) and name.endswith("continuous"):
            assert counts["preemptions"], name
        if "greedy" not in name and not name.startswith("paged_1 "):
            assert counts["copied_bytes"], name
