"""What a step takes is executed before it computes, and the rest beside it, in the plan's order."""

import threading

import pytest
import torch

from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.model.executor import ModelExecutor
from kernels.memory import backing_for
from tests.executors.model.serving_cases import SAMPLING, decoder_of, requests, virtual


class Order:
    """Notes what each step does to memory and when it computes; compares that with its plan."""

    def __init__(self, memory, executor):
        self.events, self.seen = [], {"before": 0, "beside": 0}
        self._note(memory, "map")
        self._note(memory, "map_beside")
        self._note(executor, "_compute")
        self._threads = set()
        on_time = memory._beside
        memory._beside = lambda calls: (self._threads.add(threading.get_ident()), on_time(calls))

    def _note(self, owner, name):
        call = getattr(owner, name)
        setattr(owner, name, lambda what: (self.events.append((name, what)), call(what))[1])

    def on_step(self, step):
        events, self.events = self.events, []
        plan = step.plan
        mapping = [g for g in plan.blocking_grants if len(g.maps) or len(g.unmaps)]
        expected = [("map", grant) for grant in mapping] + [("map_beside", plan.beside)]
        computed = events[len(expected) :]
        for event, (name, grant) in zip(events, expected, strict=False):
            assert event[0] == name
            assert event[1] is grant
        assert len(events) >= len(expected)
        assert {name for name, _ in computed} <= {"_compute"}
        self.seen["before"] += not plan.before.is_empty
        self.seen["beside"] += not plan.beside.is_empty

    def check(self):
        assert min(self.seen.values()) > 0, self.seen
        assert threading.get_ident() not in self._threads
        assert self._threads


@pytest.mark.parametrize("policy", ["continuous", "chunked"])
def test_a_step_computes_behind_what_it_takes_and_the_thread_begins_before_it(policy):
    allocator, table, sampling = virtual(layout="sliced"), requests(), SAMPLING["greedy"]
    memory = backing_for(allocator, dtype=torch.float32)
    executor = ModelExecutor(decoder_of("llama"), allocator, memory, table, sampling, 0, "cpu")
    order = Order(memory, executor)
    spec = EngineSpec(max_num_seqs=32, policy=policy)
    with executor:
        Engine(Setup(allocator, table, sampling, spec, executor, 0, [order])).run("ordered")
    order.check()
