"""A comparison writes while it runs: the same files, whatever happens on the way."""

import json
import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

import harness.comparison.variant as variant
import harness.engine.meter as meter
from allocators.paged import Paged
from harness.comparison import compose, prepare, run_comparison
from harness.comparison.variant import run_variant
from harness.errors import ConfigError
from harness.results.columns import ColumnFile
from harness.results.stream import Intake

MANY = [
    "+workload=uniform", "workload.num_requests=45", "workload.prompt.high=60",
    "workload.output.low=1", "workload.output.high=60", "kv_tokens=2100",
    "engine.max_num_seqs=3", "allocator=[paged,contiguous_max]", "report=none",
]  # fmt: skip
FILES = ("requests.parquet", "timeline.parquet")


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 40 rows, so that a run of hundreds of steps has many, and not at its end."""
    monkeypatch.setattr(variant, "Intake", lambda to, name, rows: Intake(to, name, block_rows=40))
    monkeypatch.setattr(meter, "STEP_ROWS", 64)
    monkeypatch.setattr(meter, "ENDED_ROWS", 4)


def deterministic(row):
    return {name: value for name, value in row.metrics.items() if name != "allocator_us_per_step"}


def test_the_files_of_a_comparison_are_the_logs_of_its_variants(tmp_path, small_blocks):
    prepared = prepare(compose(*MANY, "timeline=full"))
    comparison = run_comparison(prepared, tmp_path / "run")
    assert pq.ParquetFile(tmp_path / "run" / "timeline.parquet").num_row_groups > 20
    assert len(comparison.logs) == 2
    for row, log in zip(comparison.rows, comparison.logs, strict=True):
        other, kept = run_variant(prepared, row.allocator)
        assert deterministic(row) == deterministic(other)
        assert (log.allocator, log.capacity_bytes) == (kept.allocator, kept.capacity_bytes)
        assert log.totals["gap_s"] == kept.totals["gap_s"]
        log.check()
        for there, here in ((kept.timeline, log.timeline), (kept.requests, log.requests)):
            assert there.keys() == here.keys()
            for name, column in there.items():
                assert here[name].dtype == column.dtype, name
                np.testing.assert_array_equal(here[name], column, name)


def test_metrics_are_those_of_all_steps_where_the_timeline_is_in_bins(tmp_path, small_blocks):
    rows = {}
    for timeline in ("auto", "full"):
        prepared = prepare(compose(*MANY, f"timeline={timeline}"))
        comparison = run_comparison(prepared, tmp_path / timeline)
        rows[timeline] = [deterministic(row) for row in comparison.rows]
        for row, log in zip(comparison.rows, comparison.logs, strict=True):
            assert log.steps == row.metrics["steps"]
            assert ("busy_s" in log.timeline) == (timeline == "auto")
    assert rows["auto"] == rows["full"]


def test_a_variant_that_is_interrupted_leaves_none_of_its_rows(tmp_path, small_blocks, monkeypatch):
    grown = []

    def interrupted(self, rows, n=1):
        grown.append(n)
        if len(grown) == 30:
            there.extend(os.listdir(tmp_path / "run"))
            signal.raise_signal(signal.SIGINT)
        return original(self, rows, n)

    def seen(self, allocator, rows):
        written.append(allocator)
        write(self, allocator, rows)

    there, written, original, write = [], [], Paged.grow, ColumnFile.write
    monkeypatch.setattr(Paged, "grow", interrupted)
    monkeypatch.setattr(ColumnFile, "write", seen)
    composed = compose(*MANY, "allocator=[contiguous_max,paged]", "timeline=full")
    comparison = run_comparison(prepare(composed), tmp_path / "run")
    assert comparison.interrupted
    assert {row.allocator: row.status for row in comparison.rows} == {
        "contiguous_max": "ok", "paged": "error",
    }  # fmt: skip
    assert written.count("paged") > 3, "it came too early to leave a part"
    assert not set(FILES) & set(there), "a file has its name before it is whole"
    assert sorted(os.listdir(tmp_path / "run")) == [*FILES[:1], "summary.json", *FILES[1:]]
    for name in FILES:
        found = pq.read_table(tmp_path / "run" / name)["allocator"].unique().to_pylist()
        assert found == ["contiguous_max"]
    assert [log.allocator for log in comparison.logs] == ["contiguous_max"]


@pytest.mark.parametrize("at", [3, 30])
def test_a_disk_that_fills_on_the_way_costs_the_files_and_no_metric(
    at, tmp_path, small_blocks, monkeypatch
):
    whole = run_comparison(prepare(compose(*MANY)), tmp_path / "whole")
    calls, write_table = [], pq.ParquetWriter.write_table

    def full(self, *given):
        calls.append(1)
        if len(calls) >= at:
            raise OSError(28, "No space left on device")
        write_table(self, *given)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    comparison = run_comparison(prepare(compose(*MANY, "timeline=full")), tmp_path / "run")
    assert len(calls) == at, "written again after a failure"
    assert comparison.unsaved.endswith("[Errno 28] No space left on device")
    assert "\n" not in comparison.unsaved
    for row, other in zip(comparison.rows, whole.rows, strict=True):
        assert deterministic(row) == deterministic(other)
    assert os.listdir(tmp_path / "run") == ["summary.json"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]


def test_another_timeline_is_one_line():
    with pytest.raises(ConfigError, match="timeline must be one of auto, full, got 'long'"):
        prepare(compose(*MANY, "timeline=long"))
