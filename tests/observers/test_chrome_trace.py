"""What a trace says of a step is what the engine did in it."""

from allocators.paged import Paged
from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.observers.chrome_trace import TraceRecorder
from tests.engine.cases import MODES, POOL, Metronome, table


def test_copied_bytes_are_slots_times_the_bytes_of_a_token_and_not_of_a_page():
    """Three sequences share the 10 tokens of a prompt; two of them copy its block of 16."""
    recorder = TraceRecorder("paged", 1, str)
    engine = Engine(
        Paged(POOL, block_size=16),
        table([10], [3]),
        MODES["parallel"],
        EngineSpec(),
        Metronome(),
        seed=0,
        observers=[recorder],
    )
    log = engine.run("paged")
    steps = [event["args"] for event in recorder.events if event["ph"] == "X"]
    copied = [step["copied_bytes"] for step in steps]
    assert copied == [0, 2 * 10 * POOL.bytes_per_token, 0]
    assert copied == log.timeline["copied_bytes"][[s["first_step"] for s in steps]].tolist()
