"""A log that comes in blocks is the log that was whole, however it was cut."""

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness.engine.meter as meter
from allocators.paged import Paged
from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.engine.group import Group
from harness.engine.setup import Setup
from harness.results.stream import ENDED_COLUMNS, Intake, Kept
from harness.results.summary import Summary, summarize
from tests.engine.cases import MODES, POOL, Metronome, drawn, make
from tests.results.logs import make_log


def name_of(index):
    return f"r{index}"


def streamed(log, consumers, rows, seed):
    """Give a log to consumers in blocks drawn from `seed`, requests in an order drawn too."""
    rng = np.random.default_rng(seed)
    intake = Intake(consumers, name_of, rows)
    for block in cut(log.timeline, rng):
        intake.steps(block)
        for column in block.values():  # as an engine does that writes its memory again
            column[...] = 0
    order = rng.permutation(len(log.requests["request"]))
    for block in cut({name: log.requests[name][order] for name in ENDED_COLUMNS}, rng):
        intake.ended(block)
        for column in block.values():
            column[...] = 0
    intake.finish()


def cut(columns, rng):
    total = len(next(iter(columns.values())))
    places = np.unique(rng.integers(0, total + 1, rng.integers(0, 6)))
    edges = [0, *places[(places > 0) & (places < total)].tolist(), total]
    for start, stop in itertools.pairwise(edges):
        if start < stop:
            yield {name: column[start:stop].copy() for name, column in columns.items()}


logs = st.builds(
    make_log,
    steps=st.integers(0, 200),
    requests=st.integers(0, 60),
    seed=st.integers(0, 1000),
    gap_probability=st.sampled_from([0.0, 0.3, 1.0]),
)


@settings(deadline=None, max_examples=60)
@given(log=logs, rows=st.integers(1, 250), seed=st.integers(0, 1000))
def test_what_is_kept_is_the_whole_log(log, rows, seed):
    kept = Kept()
    streamed(log, [kept], rows, seed)
    found = kept.log(log.allocator, log.capacity_bytes, log.totals)
    log.requests["status"][:] = "finished"
    for there, here in ((log.timeline, found.timeline), (log.requests, found.requests)):
        assert there.keys() == here.keys()
        for name, column in there.items():
            assert here[name].dtype == column.dtype, name
            np.testing.assert_array_equal(here[name], column, name)


@settings(deadline=None, max_examples=60)
@given(log=logs, rows=st.integers(1, 250), seeds=st.tuples(*[st.integers(0, 1000)] * 2))
def test_metrics_do_not_depend_on_how_a_log_was_cut(log, rows, seeds):
    log.requests["status"][:] = "finished"
    found = []
    for seed in seeds:
        summary = Summary(log.allocator, log.capacity_bytes)
        streamed(log, [summary], rows, seed)
        found.append(summary.metrics(log.totals))
    assert repr(found[0]) == repr(found[1])
    whole = summarize(log)
    if rows >= log.steps:
        assert repr(found[0]) == repr(whole)
    for name, value in whole.items():
        assert (found[0][name] is None) == (value is None), name
        assert value is None or found[0][name] == pytest.approx(value, rel=1e-12), name


def test_one_that_ends_late_holds_back_those_behind_it_and_no_other():
    kept = Kept()
    intake = Intake([kept], name_of, block_rows=1)
    log = make_log(requests=4)

    def end(*indices):
        at = list(indices)
        intake.ended({name: log.requests[name][at] for name in ENDED_COLUMNS})
        return kept.log("x", 1, {}).requests["id"].tolist()

    assert end(0, 2) == ["r0"]
    assert end(3) == ["r0"]
    assert end(1) == ["r0", "r1", "r2", "r3"]


def test_a_block_that_contradicts_itself_ends_the_run_there():
    log = make_log(steps=20)
    log.timeline["idle_bytes"][7] += 1
    summary = Summary("paged", log.capacity_bytes)
    intake = Intake([summary], name_of, block_rows=5)
    with pytest.raises(ValueError, match="memory of step 7 does not sum"):
        intake.steps(log.timeline)


class Counts:
    """A sink that only counts, and sees how many groups there are at most."""

    def __init__(self):
        self.steps_taken, self.requests_ended, self.most_groups = 0, 0, 0
        self.gaps_taken = 0
        self._others = count_groups()

    def steps(self, block):
        self.steps_taken += len(block["step"])

    def token_gaps(self, seconds, counts):
        self.gaps_taken += int(counts.sum())

    def ended(self, block):
        self.requests_ended += len(block["request"])
        self.most_groups = max(self.most_groups, count_groups() - self._others)


def count_groups():
    gc.collect()
    return sum(type(each) is Group for each in gc.get_objects())


def test_an_engine_keeps_nothing_of_what_has_ended(monkeypatch):
    monkeypatch.setattr(meter, "ENDED_ROWS", 75)
    requests = drawn(300, "poisson", mean_gap_s=20.0)
    log = make(Paged(POOL), requests, MODES["greedy"]).run("x")
    live = max((log.timeline["batch"] + log.timeline["waiting"]).tolist())
    sink = Counts()
    make(Paged(POOL), requests, MODES["greedy"]).serve(sink)
    assert (sink.steps_taken, sink.requests_ended) == (log.steps, 300)
    assert 0 < sink.most_groups <= live < 30


def test_beams_of_those_who_wait_are_not_drawn_yet():
    drawn_for, seen = [], []

    def lineage(request, steps):
        drawn_for.append(request)
        return np.tile(np.arange(4), (steps, 1))

    requests = drawn(60)
    engine = Engine(Setup(
        Paged(POOL), requests, MODES["beam"], EngineSpec(max_num_seqs=8), Metronome(), 0,
        lineage=lineage,)
    )  # fmt: skip
    engine.serve(Counts(), lambda ended: seen.append(len(drawn_for)))
    assert seen[0] <= 2, "one or two groups of four fit"
    assert sorted(drawn_for) == list(range(60))
