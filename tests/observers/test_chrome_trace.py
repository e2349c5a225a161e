"""What a trace says of a step is what the engine did in it."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from allocators.paged import Paged
from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.observers.chrome_trace import TraceRecorder
from harness.results import CATEGORIES
from tests.engine.cases import MODES, POOL, Metronome, table


def test_copied_bytes_are_slots_times_the_bytes_of_a_token_and_not_of_a_page():
    """Three sequences share the 10 tokens of a prompt; two of them copy its block of 16."""
    recorder = TraceRecorder("paged", 1, str)
    engine = Engine(
        Setup(
            Paged(POOL, block_size=16),
            table([10], [3]),
            MODES["parallel"],
            EngineSpec(),
            Metronome(),
            seed=0,
            observers=[recorder],
        )
    )
    log = engine.run("paged")
    steps = [event["args"] for event in recorder.events if event["ph"] == "X"]
    copied = [step["copied_bytes"] for step in steps]
    assert copied == [0, 2 * 10 * POOL.bytes_per_token, 0]
    assert copied == log.timeline["copied_bytes"][[s["first_step"] for s in steps]].tolist()


def traced(tokens, requests):
    """The events of requests of 20 + 30 tokens, in a pool of `tokens`, and the run's log."""
    recorder = TraceRecorder("paged", 1, "request {}".format)
    engine = Engine(
        Setup(
            Paged(replace(POOL, capacity_tokens=tokens), block_size=16),
            table([20] * requests, [30] * requests),
            MODES["greedy"],
            EngineSpec(),
            Metronome(),
            seed=0,
            observers=[recorder],
        )
    )
    return recorder.events, engine.run("paged")


@pytest.fixture(scope="module")
def tight():
    """A pool in which two of the four requests are preempted now and then."""
    return traced(128, 4)


def test_the_events_follow_the_published_format(tight):
    """Trace Event Format (Google, 2016): which fields each phase needs, and of which type."""
    events, _ = tight
    assert {event["ph"] for event in events} == {"X", "C", "i", "M"}
    for event in json.loads(json.dumps(events, allow_nan=False)):
        assert isinstance(event["name"], str)
        assert event["name"]
        assert isinstance(event["ts"], int | float)
        assert event["ts"] >= 0
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["args"], dict)
        if event["ph"] == "X":
            assert event["dur"] >= 0
        elif event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        elif event["ph"] == "C":
            assert event["args"]
            assert all(type(value) in (int, float) for value in event["args"].values())
        else:
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)


def test_each_track_goes_forward_in_time_and_its_slices_do_not_overlap(tight):
    events, _ = tight
    counters = {event["name"] for event in events if event["ph"] == "C"}
    for name in counters:
        times = [event["ts"] for event in events if event["ph"] == "C" and event["name"] == name]
        assert times == sorted(times)
    slices = [event for event in events if event["ph"] == "X"]
    for event, after in itertools.pairwise(slices):
        assert event["ts"] + event["dur"] <= after["ts"] + 1e-6


def test_every_preemption_names_its_request(tight):
    events, log = tight
    named = [event["name"] for event in events if event["name"].startswith("preempted")]
    assert len(named) == log.requests["preemptions"].sum() > 0
    for index, count in enumerate(log.requests["preemptions"]):
        assert named.count(f"preempted request {index}") == count


def test_memory_is_counted_by_category_as_in_the_timeline(tight):
    events, log = tight
    counted = [event for event in events if event["name"] == "KV memory, bytes"]
    starts_us = 1e6 * log.timeline["start_s"]
    for event in counted:
        (step,) = np.flatnonzero(np.isclose(starts_us, event["ts"]))
        assert event["args"] == {name: log.timeline[f"{name}_bytes"][step] for name in CATEGORIES}
        assert sum(event["args"].values()) == log.capacity_bytes
    assert len(counted) >= len([event for event in events if event["ph"] == "X"])
