"""Memory over time agrees with the means of the summary, between the steps too."""

import numpy as np
import pytest

from allocators.virtual import Virtual
from harness.engine.config import SamplingSpec
from harness.report.charts.chart import Variant
from harness.report.charts.memory import Scale, binned_bytes
from harness.report.load import load_collection
from harness.results import CATEGORIES, ResultRow
from harness.results.reader import read_logs
from harness.results.summary import summarize
from tests.engine.cases import POOL, run, table
from tests.results.directories import write_run
from tests.results.logs import make_log


def means(log, bins):
    edges_s = np.linspace(0, log.timeline["time_s"][-1], bins + 1)
    return binned_bytes(log, edges_s).mean(axis=1) / log.capacity_bytes


@pytest.mark.parametrize("bins", [1, 7, 240])
def test_binning_keeps_the_mean_of_the_run(bins):
    log = make_log(steps=500, gap_probability=0.3)
    metrics = summarize(log)
    expected = [metrics[f"{category}_share"] for category in CATEGORIES]
    assert means(log, bins) == pytest.approx(expected)
    edges_s = np.linspace(0, log.timeline["time_s"][-1], bins + 1)
    assert binned_bytes(log, edges_s).sum(axis=0) == pytest.approx(log.capacity_bytes)


def test_a_run_that_is_read_back_knows_what_was_cached_while_nothing_ran(tmp_path):
    # A request's pages stay mapped when it ends: they are cached from then on, after its last step.
    requests = table([20] * 6, [12] * 6, arrival_s=40.0 * np.arange(6))
    log = run(Virtual(POOL, page_size="64KiB"), requests, SamplingSpec("greedy"))
    metrics = summarize(log)
    write_run(tmp_path, {}, {}, [ResultRow(log.allocator, metrics=metrics)], [log])
    (loaded,) = load_collection([tmp_path]).runs
    logs, problems = read_logs(tmp_path, loaded.totals)
    assert problems == []
    (back,) = logs.values()
    assert metrics["cached_share"] > 0.05
    expected = [metrics[f"{category}_share"] for category in CATEGORIES]
    assert means(back, 100) == pytest.approx(expected)
    # The steps alone, each with what was cached before it, would say something else.
    last_cached = np.concatenate(([0], log.timeline["cached_bytes"][:-1]))
    waits_s = log.timeline["start_s"] - np.concatenate(([0], log.timeline["time_s"][:-1]))
    assert (last_cached * waits_s).sum() < 0.9 * log.totals["gap_cached_byte_s"]


@pytest.mark.parametrize(("steps", "shared"), [(500, True), (200, True), (100, False)])
def test_a_long_run_does_not_squeeze_a_short_one(steps, shared):
    logs = [make_log("slow", steps=500), make_log("fast", steps=steps)]
    variants = [Variant(log.allocator, ResultRow(log.allocator), log) for log in logs]
    scale = Scale.of(variants)
    assert scale.shared is shared
    lengths_s = [log.timeline["time_s"][-1] for log in logs]
    ends_s = [scale.end_of(log) for log in logs]
    assert ends_s == pytest.approx([lengths_s[0]] * 2 if shared else lengths_s)
