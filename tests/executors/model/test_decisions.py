"""A simulated and a real run of the same requests take the same decisions, step for step."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.model.executor import ModelExecutor
from kernels.memory import BackingError, backing_for
from kernels.memory.base import OutOfMemory
from tests.engine.cases import Metronome
from tests.executors.model.serving_cases import (
    SAMPLING,
    Seen,
    Watcher,
    contiguous,
    decoder_of,
    paged,
    requests,
    serve,
    virtual,
)
from tests.places import ROOT
from workloads.requests import RequestTable

ALLOCATORS = {
    "contiguous_max": lambda host: contiguous(host=host, reservation="max"),
    "contiguous_grow": lambda host: contiguous(host=host, reservation="grow"),
    "paged": lambda host: paged(host=host, block_size=7),
    "paged_hash": lambda host: paged(host=host, block_size=7, prefix_index="hash"),
    "virtual": lambda host: virtual(host=host, layout="sliced"),
}


def simulate(allocator, table, mode, lineages, **engine):
    seen = Seen()
    options = EngineSpec(max_num_seqs=allocator.geometry.max_seqs, skip_ahead=False, **engine)
    beams = (lambda index, steps: lineages[index]) if mode == "beam" else None
    seen.log = Engine(
        Setup(allocator, table, SAMPLING[mode], options, Metronome(), 0, [Watcher(seen)], beams)
    ).run("simulated")
    return seen


#: every allocator in every mode with each preemption, and any two of all four options together
CASES = [
    (name, mode, preemption, ("continuous", "orca")[(i + j + k) % 2])
    for i, name in enumerate(ALLOCATORS)
    for j, mode in enumerate(("greedy", "parallel", "beam"))
    for k, preemption in enumerate(("recompute", "swap"))
]


@pytest.mark.parametrize(("name", "mode", "preemption", "policy"), CASES)
def test_grants_are_the_same(name, mode, preemption, policy):
    host = 1200 if preemption == "swap" else 0
    engine = {"policy": policy, "preemption": preemption}
    real = serve(ALLOCATORS[name](host), requests(), mode, **engine)
    simulated = simulate(ALLOCATORS[name](host), requests(), mode, real.lineages, **engine)
    assert real.grants == simulated.grants
    columns = ("running", "waiting", "batched_tokens", "blocks_in_use", "preemptions", "hit_tokens")
    for column in columns:
        assert (real.log.timeline[column] == simulated.log.timeline[column]).all(), column
    if mode == "beam":
        stay = np.arange(SAMPLING["beam"].width)
        assert any((lineage != stay).any() for lineage in real.lineages.values())


@pytest.mark.parametrize("policy", ["static", "orca", "chunked"])
def test_grants_are_the_same_with_other_engines(policy):
    def make():
        return paged(120, block_size=4, prefix_index="hash")

    real = serve(make(), requests(), policy=policy)
    assert real.grants == simulate(make(), requests(), "greedy", {}, policy=policy).grants
    assert real.hits


def test_a_kept_history_is_what_was_really_answered():
    """Later turns go on from generated tokens, and find their KV in the prefix cache."""
    after = np.array([-1, -1, 0, 1, 2])
    prompts = np.array([9, 12, 30, 34, 55])
    table = RequestTable(
        arrival_s=np.zeros(5),
        prompt_tokens=prompts,
        output_tokens=np.array([16, 14, 16, 9, 5]),
        after=after,
        think_s=np.zeros(5),
        keeps_history=True,
    )
    plain = serve(paged(3000, block_size=4), table)
    cached = serve(paged(3000, block_size=4, prefix_index="hash"), table)
    assert cached.digest == plain.digest
    # whole blocks of what was fed: prompt and all of the output but its last token
    assert cached.hits == sum((prompts[i] + table.output_tokens[i] - 1) // 4 * 4 for i in (0, 1, 2))
    turn = cached.outputs[0][0]
    histories = ModelExecutor(
        decoder_of("llama"), paged(600), backing_for(paged(600), dtype=torch.float32),
        table, SAMPLING["greedy"], 0, "cpu",
    ).histories  # fmt: skip
    histories._outputs = {0: cached.outputs[0]}
    assert histories.prompt(2)[9:25].tolist() == turn.tolist()


class Failing:
    """A driver call that fails after some maps, as memory does."""

    def __init__(self, call, after, error):
        self._call, self._left, self._error = call, after, error

    def __call__(self, *args):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._call(*args)


@pytest.mark.parametrize("error", [OutOfMemory("no page is left"), BackingError("map failed")])
def test_memory_is_given_back_when_a_map_fails(error):
    allocator = virtual(layout="sliced")
    memory = backing_for(allocator, dtype=torch.float32)
    memory.driver.map = Failing(memory.driver.map, 6, error)
    table = requests()
    executor = ModelExecutor(
        decoder_of("llama"), allocator, memory, table, SAMPLING["beam"], 0, "cpu"
    )
    engine = Engine(
        Setup(allocator, table, SAMPLING["beam"], EngineSpec(max_num_seqs=32), executor, 0)
    )
    with pytest.raises(type(error)), executor:
        engine.run("failing")
    assert memory.closed
    assert memory.resident_bytes() == 0


def test_a_step_waits_for_what_is_mapped_in_the_background():
    run = subprocess.run(
        [sys.executable, "-m", "tests.executors.model.slow_maps"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "late maps were waited for" in run.stdout, f"status {run.returncode}: {run.stderr}"


def test_the_last_maps_in_the_background_are_counted_too(monkeypatch):
    """Regression: those still under way at the end of the last step were in no total."""
    allocator = virtual(layout="sliced")  # a page-group holds 16 tokens
    # With handles made ahead nothing new is committed, so that nobody asks what is resident.
    memory = backing_for(allocator, dtype=torch.float32, handles="ahead")
    on_time = memory.driver.map

    def slow(*args):
        if threading.current_thread().name.startswith("map-beside"):
            time.sleep(0.02)
        on_time(*args)

    monkeypatch.setattr(memory.driver, "map", slow)
    # Prompt and output fill a page-group just in the last step, which maps the next one ahead.
    table = RequestTable(np.zeros(1), np.array([12]), np.array([5]))
    sampling = SAMPLING["greedy"]
    executor = ModelExecutor(decoder_of("llama"), allocator, memory, table, sampling, 0, "cpu")
    with executor:
        log = Engine(Setup(allocator, table, sampling, EngineSpec(), executor, 0)).run("late")
    assert memory.mapping_s > 0.02
    assert log.totals["map_s"] == pytest.approx(memory.mapping_s)
