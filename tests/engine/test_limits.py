"""What limits a step: held to a slow statement that asks the allocator again, on a copy of it."""

import copy
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Demand, Geometry, Prompt
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Scheduler, Unservable
from harness.engine.schedulers.chunked import ChunkedScheduler
from harness.engine.schedulers.whole_prompts import WholePromptScheduler
from harness.engine.setup import Setup
from harness.results.runlog import LIMITED_BY, LIMITS, PART_SECONDS
from tests.engine.cases import roofline, table
from tests.stories import tell

MAX_LEN = 40
POLICIES = ("continuous", "orca", "static", "chunked")


class Asking:
    """Stands between an engine and its scheduler, and says itself what limits each step."""

    def __init__(self, engine, spec):
        self._scheduler, engine._scheduler = engine._scheduler, self
        self._allocator, self._spec = engine._allocator, spec
        self.limits = []

    def __getattr__(self, name):
        return getattr(self._scheduler, name)

    def plan(self, horizon):
        ran = set(self.running.groups)
        plan = self._scheduler.plan(horizon)
        if plan is not None:
            limit = self._limit(plan, ran)
            assert self.limit == limit, (self.limit, limit)
            self.limits += [limit] * plan.steps
        return plan

    def _limit(self, plan, ran):
        if not self.waiting:
            return "nobody"
        head, running = self.waiting[0], self.running.groups
        let_in = [group for group in running if group not in ran]
        back = [group.index for group in plan.preempted if group.index in running]
        if plan.preempted and not back:
            return "preemption"  # else all were, and the queue was asked again
        if self._spec.policy == "static" and not let_in and not back:
            return "policy"
        if len(running) == min(self._spec.max_num_seqs, self._allocator.geometry.max_seqs):
            return "sequences"
        known = head.prompt_tokens + head.generated
        limit = self._spec.max_num_batched_tokens
        if self._spec.policy == "chunked":
            left = limit - plan.batched_tokens
            if left == 0:
                return "tokens"
            prompt = Prompt(min(known, left), whole_tokens=known)
        else:
            computed = sum(prefill.computed_tokens for prefill in plan.prefills)
            if plan.prefills and not head.swapped and computed + known > limit:
                return "tokens"
            if self._spec.policy == "orca" and head.swapped and plan.prefills:
                return "preemption"
            prompt = Prompt(known)
        assert not self._fits(head, prompt), "it could have been let in"
        return "memory"

    def _fits(self, head, prompt):
        memory = copy.deepcopy(self._allocator)
        row = np.array(
            [min(set(range(memory.geometry.max_seqs)) - set(self.running.rows.tolist()))]
        )
        if head.swapped:
            return memory.resume(row, head.index) is not None
        demand = Demand(head.prompt_tokens, head.output_tokens, 0, 1)
        return memory.admit(row, prompt, demand) is not None


@st.composite
def cases(draw, policy):
    pair = st.tuples(st.integers(1, 20), st.integers(1, 14))
    lengths = draw(st.lists(pair, min_size=3, max_size=9))
    gaps = draw(st.lists(st.integers(0, 9), min_size=len(lengths), max_size=len(lengths)))
    gap_s = draw(st.sampled_from([0.0, 0.0005, 0.004]))
    options = {
        "policy": policy,
        "max_num_batched_tokens": draw(st.sampled_from([3, 12, 30, 2048])),
        "max_num_seqs": draw(st.sampled_from([2, 9, 9])),
        "preemption": "recompute" if policy == "chunked" else draw(
            st.sampled_from(["recompute", "swap"])),
    }  # fmt: skip
    longest = max(prompt + output - 1 for prompt, output in lengths)
    tokens = longest + draw(st.sampled_from([0, 2, 5, 9, 16, 24]))
    host = draw(st.sampled_from([0, 16, 200])) if options["preemption"] == "swap" else 0
    pool = Geometry(
        -(-tokens // 19) * 19, 9, MAX_LEN, layers=2, kv_heads=8, head_dim=512, host_tokens=host
    )
    make = draw(
        st.sampled_from(
            [
                lambda: Paged(pool, block_size=4),
                lambda: Paged(pool, block_size=1, watermark=0.1),
                lambda: Contiguous(pool, reservation="grow"),
                lambda: Contiguous(pool, reservation="oracle"),
                lambda: Virtual(pool, page_size="64KiB"),
            ]
        )
    )
    return make, table(*zip(*lengths, strict=True), np.cumsum(gaps) * gap_s), options


def asked(case, skip_ahead=True):
    """Return the log of a run whose limits are those of the slow statement; None if it cannot."""
    make, requests, options = case
    allocator, spec = make(), EngineSpec(**options, skip_ahead=skip_ahead)
    setup = Setup(allocator, requests, SamplingSpec("greedy"), spec, roofline(allocator), 0)
    engine = Engine(setup)
    asking = Asking(engine, spec)
    try:
        log = engine.run("x")
    except Unservable:
        return None
    log.check()
    named = np.array([log.timeline[name] for name in LIMITED_BY])
    assert [LIMITS[place] for place in named.argmax(axis=0)] == asking.limits
    return log


@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_is_limited_by_what_keeps_the_next_request_out(policy):
    seen = Counter()

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(cases(policy))
    def check(case):
        log = asked(case)
        if log is None:
            return
        one_by_one = asked(case, skip_ahead=False)
        for name in (*LIMITED_BY, *PART_SECONDS):
            np.testing.assert_array_equal(log.timeline[name], one_by_one.timeline[name], name)
        for limit, name in zip(LIMITS, LIMITED_BY, strict=True):
            seen[limit] += int(log.timeline[name].sum())

    wanted = set(LIMITS) - ({"policy"} if policy != "static" else set())
    tell(check, lambda: all(seen[limit] for limit in wanted))
    assert {limit for limit in seen if seen[limit]} == wanted


def lie(monkeypatch, kind, call, limit):
    """Let a scheduler say after each `call` that something else limits the step."""
    right = getattr(kind, call)

    def wrong(self, *args, **options):
        answer = right(self, *args, **options)
        self.limit = limit
        return answer

    monkeypatch.setattr(kind, call, wrong)


@pytest.mark.parametrize(
    ("policy", "kind", "call", "limit"),
    [
        ("continuous", Scheduler, "_refused", "sequences"),
        ("chunked", Scheduler, "_refused", "nobody"),
        ("continuous", Scheduler, "_preempt", "memory"),
        ("static", WholePromptScheduler, "_hold_back", "memory"),
        ("orca", WholePromptScheduler, "_admit", "memory"),
        ("chunked", ChunkedScheduler, "_schedule_waiting", "tokens"),
        ("chunked", ChunkedScheduler, "_schedule_waiting", "sequences"),
    ],
)
def test_a_wrong_limit_is_found(policy, kind, call, limit, monkeypatch):
    lie(monkeypatch, kind, call, limit)
    pool = Geometry(64, 9, MAX_LEN, layers=2, kv_heads=8, head_dim=512)
    requests = table([9, 20, 3, 12, 9, 14], [12, 3, 14, 9, 12, 8])
    options = {"policy": policy, "max_num_batched_tokens": 30, "max_num_seqs": 9}
    with pytest.raises(AssertionError):
        asked((lambda: Paged(pool, block_size=4), requests, options))
