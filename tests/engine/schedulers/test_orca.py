"""The `orca` policy selects, iteration by iteration, what Algorithm 1 of Orca's paper selects."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.contiguous import Contiguous
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from tests.engine.cases import Checking, Metronome, table
from tests.stories import tell

MAX_LEN = 24


class Request:
    def __init__(self, arrival_s, prompt, output, max_tokens):
        self.arrival_s, self.max_tokens = arrival_s, max_tokens
        self.prompt, self.output = prompt, output
        self.state, self.sampled = "initiation", 0


def select(pool, n_rsrv, max_bs, n_slots):
    """Return the batch of an iteration, in order of arrival, and the slots then reserved."""
    batch = []
    for request in sorted(pool, key=lambda request: request.arrival_s):
        if len(batch) == max_bs:
            break
        if request.state == "initiation":
            if n_rsrv + request.max_tokens > n_slots:
                break
            n_rsrv += request.max_tokens
        batch.append(request)
    return batch, n_rsrv


def iterations(requests, max_bs, n_slots):
    """Yield what each iteration of a second computes: (its start, request, first token, tokens)."""
    pool, n_rsrv, now_s = list(requests), 0, 0.0
    while pool:
        arrived = [request for request in pool if request.arrival_s <= now_s]
        if not arrived:
            now_s = min(request.arrival_s for request in pool)
            continue
        batch, n_rsrv = select(arrived, n_rsrv, max_bs, n_slots)
        for request in batch:
            past = request.prompt + request.sampled - 1 if request.sampled else 0
            yield now_s, requests.index(request), past, 1 if past else request.prompt
            request.state, request.sampled = "increment", request.sampled + 1
            if request.sampled == request.output:
                n_rsrv -= request.max_tokens
                pool.remove(request)
        now_s += 1.0


class Computed:
    """An observer: what each step computes, in the terms of `iterations`."""

    def __init__(self):
        self.seen = []

    def on_step(self, step):
        running, plan = step.running, step.plan
        owners = dict(zip(running.rows.tolist(), running.owner.tolist(), strict=True))
        length = step.allocator.length
        starts = [step.start_s, *step.ends_s[:-1].tolist()]
        for i, start_s in enumerate(starts):
            for row in plan.rows.tolist():
                past = int(length[row]) - len(starts) + i
                self.seen.append((start_s, owners[row], past, 1))
            for prefill in plan.prefills:
                self.seen.append((start_s, prefill.group.index, 0, prefill.prompt_tokens))


@st.composite
def cases(draw):
    """Requests that reserve all the same, so that no hole between extents is too small."""
    reserves = draw(st.sampled_from(["max", "oracle"]))
    outputs = draw(st.lists(st.integers(1, 12), min_size=1, max_size=12))
    prompts = [draw(st.integers(1, 12)) for _ in outputs]
    if reserves == "oracle":
        prompts = [14 - output for output in outputs]
    gaps = draw(st.lists(st.integers(0, 5), min_size=len(outputs), max_size=len(outputs)))
    arrivals = np.cumsum(gaps) / 2 if draw(st.booleans()) else np.zeros(len(outputs))
    slots = draw(st.integers(MAX_LEN, 5 * MAX_LEN))
    return reserves, prompts, outputs, arrivals, draw(st.integers(1, 6)), slots, draw(st.booleans())


def test_each_iteration_computes_what_algorithm_1_selects():
    seen = Counter()

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(cases())
    def compare(case):
        reserves, prompts, outputs, arrivals, max_bs, n_slots, skip = case
        max_tokens = MAX_LEN if reserves == "max" else 13  # the last output token is never fed
        expected = list(
            iterations(
                [
                    Request(*request, max_tokens)
                    for request in zip(arrivals.tolist(), prompts, outputs, strict=True)
                ],
                max_bs,
                n_slots,
            )
        )
        pool = Geometry(n_slots, 16, MAX_LEN)
        memory = Contiguous(pool, reservation=reserves, placement="first_fit")
        options = EngineSpec(policy="orca", max_num_seqs=max_bs, skip_ahead=skip)
        computed = Computed()
        requests = table(prompts, outputs, arrivals)
        clock = Metronome() if skip else Checking(memory)
        Engine(Setup(memory, requests, SamplingSpec(), options, clock, 0, [computed])).run("x")
        assert computed.seen == expected

        batches = Counter(start_s for start_s, *_ in expected)
        kinds = {start_s: set() for start_s in batches}
        for start_s, _, past, _ in expected:
            kinds[start_s].add(past > 0)
        seen["mixed"] += sum(len(kind) == 2 for kind in kinds.values())
        largest, room = max(batches.values()), n_slots // max_tokens
        seen["full"] += largest == max_bs
        seen["no room"] += largest == room < min(max_bs, len(prompts))

    # Prompts beside decodes, a full batch, somebody who waits for a reservation.
    wanted = {"mixed": 100, "full": 20, "no room": 20}
    tell(compare, lambda: all(seen[what] > least for what, least in wanted.items()))
    assert all(seen[what] > least for what, least in wanted.items()), seen
