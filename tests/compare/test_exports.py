"""Files that other tools read, held to the shapes those tools publish."""

import json

import pytest

from harness.compare.export import main
from harness.results import ResultRow
from harness.results.metrics import METRICS
from tests.compare.runs import metrics, write, write_repeats


@pytest.fixture
def exported(tmp_path):
    rows = [ResultRow("paged", metrics=metrics(map_s=None)), ResultRow("mine", "oom", "too small")]
    run = write(tmp_path / "run", rows)
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    return {p.stem: json.loads(p.read_text()) for p in (tmp_path / "out").iterdir()}


def check_action_entry(entry):
    """github-action-benchmark's `[{name, unit, value, range?, extra?}]`."""
    assert set(entry) <= {"name", "unit", "value", "range", "extra"}
    assert {"name", "unit", "value"} <= set(entry)
    assert isinstance(entry["value"], int | float)
    assert not isinstance(entry["value"], bool)
    for key in set(entry) - {"value"}:
        assert isinstance(entry[key], str)


def check_bencher(content):
    """Bencher's published JSON schema: benchmark -> measure -> value, lower_value?, upper_value?"""
    for benchmark, measures in content.items():
        assert 1 <= len(benchmark) <= 1024
        for measure, numbers in measures.items():
            assert 1 <= len(measure) <= 64
            assert "value" in numbers
            assert set(numbers) <= {"value", "lower_value", "upper_value"}
            assert all(type(value) in (int, float) for value in numbers.values())


def test_shapes_are_those_published(exported):
    assert set(exported) == {"smaller_is_better", "bigger_is_better", "bencher"}
    for name in ("smaller_is_better", "bigger_is_better"):
        for entry in exported[name]:
            check_action_entry(entry)
    check_bencher(exported["bencher"])


def test_each_metric_is_in_the_file_of_its_direction(exported):
    for name, direction in (("smaller_is_better", "lower"), ("bigger_is_better", "higher")):
        found = {entry["name"] for entry in exported[name]}
        expected = {m.name for m in METRICS if m.direction == direction} - {"map_s"}
        assert found == {f"beam/paged/{metric}" for metric in expected}


def test_failed_rows_and_undefined_metrics_are_left_out(exported):
    assert set(exported["bencher"]) == {"beam/paged"}
    assert "map_s" not in exported["bencher"]["beam/paged"]


def test_repeats_give_a_range(tmp_path):
    runs = write_repeats(tmp_path / "runs", [40, 50, 70])
    assert main([str(runs), "--out", str(tmp_path / "out")]) == 0
    bencher = json.loads((tmp_path / "out" / "bencher.json").read_text())
    (rows,) = bencher.values()
    assert rows["allocator_us_per_step"] == {"value": 50, "lower_value": 40, "upper_value": 70}
    assert rows["token_share"] == {"value": 0.5}
    entries = json.loads((tmp_path / "out" / "smaller_is_better.json").read_text())
    (entry,) = [e for e in entries if e["name"].endswith("allocator_us_per_step")]
    assert entry["range"] == "± 15"


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    run = write(tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert main([str(run), "--out", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
