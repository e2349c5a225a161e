"""Timelines in bins: what they say is what the steps say, in files and in charts too."""

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.report.charts.memory import binned_bytes
from harness.results import TIMELINE_COLUMNS, ResultRow, RunWriter
from harness.results.bins import BINNED_COLUMNS, EXTREMES, FLOWS, LEVELS, MOST_BINS, Bins
from harness.results.reader import read_logs, read_whole_logs
from harness.results.runlog import BYTES
from harness.results.stream import BLOCK_ROWS, blocks_of
from harness.results.summary import summarize
from tests.places import ROOT
from tests.results.logs import make_log


@settings(deadline=None, max_examples=80)
@given(
    steps=st.integers(1, 400),
    seed=st.integers(0, 1000),
    rows=st.integers(1, 450),
    most=st.integers(1, 64),
    timeless=st.booleans(),
)
def test_a_bin_says_what_its_steps_say(steps, seed, rows, most, timeless):
    log = make_log(steps=steps, seed=seed, capacity_bytes=1000 + seed)
    if timeless:
        log.timeline["start_s"][::2] = log.timeline["time_s"][::2]
    bins = Bins(most)
    for block in blocks_of(log.timeline, rows):
        bins.add(block)
    found = bins.columns()
    assert list(found) == list(BINNED_COLUMNS)
    count = len(found["step"])
    assert min(steps, most) / 2 <= count <= most
    sums = sum(found[name] for name in BYTES)
    assert sums.tolist() == [log.capacity_bytes] * count
    for place in range(count):
        of = {
            name: column[place * bins.width : (place + 1) * bins.width]
            for name, column in log.timeline.items()
        }
        here = {name: column[place] for name, column in found.items()}
        step_s = of["time_s"] - of["start_s"]
        assert here["steps"] == len(step_s)
        assert (here["step"], here["start_s"]) == (of["step"][0], of["start_s"][0])
        assert here["time_s"] == of["time_s"][-1]
        assert here["busy_s"] == pytest.approx(step_s.sum(), rel=1e-12)
        for name in FLOWS:
            whole = of[name].dtype != np.float64
            wanted = of[name].sum()
            assert here[name] == (wanted if whole else pytest.approx(wanted, rel=1e-12)), name
        for name in EXTREMES:
            assert here[f"{name}_min"] == of[name].min(), name
            assert here[f"{name}_max"] == of[name].max(), name
        if not step_s.any():
            continue
        for name in LEVELS:
            mean = np.average(of[name].astype(float), weights=step_s)
            assert here[name] == pytest.approx(mean, rel=1e-9, abs=1 if name in BYTES else 1e-9)
            if name in EXTREMES:
                assert here[f"{name}_min"] <= here[name] <= here[f"{name}_max"], name


def write(path, logs, rows, most=16, timeline="auto"):
    """Write logs as runs that are given blocks of `rows` rows."""
    with RunWriter(path, {}, {}, timeline, most) as writer:
        for log in logs:
            columns = writer.columns(log.allocator)
            for block in blocks_of(log.timeline, rows):
                columns.steps(block)
            for block in blocks_of(log.requests, rows):
                columns.requests(block)
            writer.end(ResultRow(log.allocator, metrics=summarize(log)), log.totals, columns)


def long_and_short():
    logs = [make_log("short", steps=50), make_log("long", steps=1000, requests=130, seed=1)]
    for log in logs:
        log.requests = {
            name: column[log.requests["status"] == "finished"]
            for name, column in log.requests.items()
        }
    return logs


def test_a_long_run_is_in_bins_and_a_short_one_beside_it_is_not(tmp_path):
    logs = long_and_short()
    write(tmp_path, logs, rows=60)
    table = pd.read_parquet(tmp_path / "timeline.parquet")
    assert list(table.columns) == ["allocator", *BINNED_COLUMNS]
    assert not table.isna().any(axis=None)
    short = logs[0]
    steps = table[table.allocator == "short"]
    assert (steps["steps"] == 1).all()
    for name in TIMELINE_COLUMNS:
        assert (steps[name].to_numpy() == short.timeline[name]).all(), name
        if name in EXTREMES:
            assert (steps[f"{name}_max"].to_numpy() == short.timeline[name]).all(), name
    bins = table[table.allocator == "long"]
    assert (bins["steps"].sum(), bins["steps"].max(), len(bins)) == (1000, 64, 16)
    assert sorted(os.listdir(tmp_path)) == ["requests.parquet", "summary.json", "timeline.parquet"]

    totals = {log.allocator: log.totals for log in logs}
    read, problems = read_logs(tmp_path, totals)
    assert not problems
    assert [read[log.allocator].steps for log in logs] == [50, 1000]
    whole = read_whole_logs(tmp_path, totals)
    for there, here in zip(logs, whole, strict=True):
        assert here.capacity_bytes == there.capacity_bytes
        for name, column in there.requests.items():
            assert here.requests[name].tolist() == column.tolist(), name
            assert here.requests[name].dtype == column.dtype, name


def test_every_step_is_kept_where_it_was_asked_for(tmp_path):
    logs = long_and_short()
    write(tmp_path, logs, rows=60, timeline="full")
    write(tmp_path / "whole", logs, rows=10_000)
    file = pq.ParquetFile(tmp_path / "timeline.parquet")
    assert file.num_row_groups == 1 + 17
    for name in ("timeline.parquet", "requests.parquet"):
        assert pq.read_table(tmp_path / name).equals(pq.read_table(tmp_path / "whole" / name))


def test_charts_of_bins_keep_the_mean(tmp_path):
    logs = [make_log("long", steps=1000, gap_probability=gap, seed=2) for gap in (0.0, 0.3)]
    for place, log in enumerate(logs):
        write(tmp_path / str(place), [log], rows=60, most=128)
        read, _ = read_logs(tmp_path / str(place), {"long": log.totals})
        end_s = log.timeline["time_s"][-1]
        for edges_s, close in (([0, end_s], 2.0), (np.linspace(0, end_s, 9), 6e4)):
            expected = binned_bytes(log, np.array(edges_s))
            found = binned_bytes(read["long"], np.array(edges_s))
            assert np.abs(found - expected).max() < close


@pytest.mark.parametrize("timeline", ["auto", "full"])
def test_a_variant_that_failed_on_its_way_leaves_no_columns(timeline, tmp_path):
    first, failed, last = long_and_short()[1], make_log("failed", steps=300), make_log("last")
    write(tmp_path / "without", [first, last], 60, timeline=timeline)
    final = [tmp_path / "run" / name for name in ("timeline.parquet", "requests.parquet")]
    with RunWriter(tmp_path / "run", {}, {}, timeline, 16) as writer:
        for log, status in ((first, "ok"), (failed, "oom"), (last, "ok")):
            columns = writer.columns(log.allocator)
            for block in blocks_of(log.timeline, 60):
                columns.steps(block)
            for block in blocks_of(log.requests, 60):
                columns.requests(block)
            assert not any(path.exists() for path in final), "half of a file"
            writer.end(ResultRow(log.allocator, status, "full"), log.totals, columns)
    assert sorted(os.listdir(tmp_path / "run")) == [
        "requests.parquet", "summary.json", "timeline.parquet",
    ]  # fmt: skip
    for path in final:
        assert pq.read_table(path).equals(pq.read_table(tmp_path / "without" / path.name))


def test_the_page_names_the_numbers_and_the_columns():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    text = page[page.index("## The timeline") :]
    assert f"at most {BLOCK_ROWS:,} steps" in text
    assert f"more than {MOST_BINS:,}" in text
    named = {name for name in TIMELINE_COLUMNS if f"`{name}`" in text}
    assert named == set(TIMELINE_COLUMNS) - set(BYTES[1:-1])
    assert set(LEVELS) | set(FLOWS) | {"step", "start_s", "time_s"} == set(TIMELINE_COLUMNS)
