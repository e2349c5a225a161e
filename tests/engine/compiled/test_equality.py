"""The loop over arrays takes the very steps of the step engine, in tight pools too."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from tests.engine.cases import table
from tests.engine.compiled.both import FRONT_ENDS, compare

MAX_LEN = 40
POLICIES = ("chunked", "continuous", "orca")
LENGTHS = {
    "any": st.tuples(st.integers(1, 20), st.integers(1, 14)),
    "long outputs": st.tuples(st.integers(1, 8), st.integers(12, 30)),
}


@st.composite
def cases(draw, policy):
    """Draw requests, a pool in which a little more than the longest of them fits, and limits."""
    lengths = draw(st.lists(LENGTHS[draw(st.sampled_from(list(LENGTHS)))], min_size=3, max_size=9))
    gaps = draw(st.lists(st.integers(0, 9), min_size=len(lengths), max_size=len(lengths)))
    gap_s = draw(st.sampled_from([0.0, 0.0005, 0.004]))
    options = {
        "policy": policy,
        "max_num_batched_tokens": draw(st.sampled_from([1, 3, 12, 30, 2048])),
        "max_num_seqs": draw(st.sampled_from([2, 9, 9])),
        "skip_ahead": draw(st.booleans()),
    }
    if policy != "chunked":
        options["expected_output_tokens"] = draw(st.sampled_from([0, 0, 4, 30]))
    longest = max(prompt + output - 1 for prompt, output in lengths)
    return {
        "requests": table(*zip(*lengths, strict=True), np.cumsum(gaps) * gap_s),
        "tokens": longest + draw(st.sampled_from([-5, 0, 0, 2, 5, 9, 16, 24])),
        "front_end": draw(st.sampled_from(FRONT_ENDS)),
        "options": options,
    }


def held_to_each_other(make, policy, seen, case):
    geometry = Geometry(max(1, case["tokens"]), 9, MAX_LEN, layers=3)
    log = compare(make(geometry), case["requests"], case["front_end"], **case["options"])
    if log is None:
        seen["never fits"] += 1
        return
    t = log.timeline
    seen["finished"] += 1
    seen["preemptions"] += int(t["preemptions"].sum())
    seen["refusals"] += int(t["saturated"].sum())
    for limit in ("nobody", "memory", "sequences", "tokens", "preemption"):
        seen[limit] += int(t[f"limited_by_{limit}"].sum())
    seen["waits"] += log.totals["gap_s"] > 0
    seen["wasted"] += log.totals["wasted_tokens"]
    seen["maps"] += log.totals.get("maps", 0)
    seen["unmaps"] += log.totals.get("unmaps", 0)
    seen["copied"] += int(t["copied_bytes"].sum())


@pytest.mark.parametrize("policy", POLICIES)
def test_paged_steps_are_those_of_the_step_engine(policy):
    seen = Counter()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(cases(policy), st.sampled_from([1, 2, 4, 16]), st.sampled_from([0.0, 0.1]))
    def check(case, block, watermark):
        def make(geometry):
            tokens = -(-geometry.capacity_tokens // block) * block
            pool = Geometry(tokens, geometry.max_seqs, geometry.max_len, layers=3)
            return lambda: Paged(pool, block_size=block, watermark=watermark)

        held_to_each_other(make, policy, seen, case)

    check()
    limits = ("nobody", "memory", "sequences", "tokens", "preemption")
    for what in ("never fits", "finished", "preemptions", "refusals", "waits", *limits):
        assert seen[what], what


@pytest.mark.parametrize("policy", POLICIES)
def test_contiguous_steps_are_those_of_the_step_engine(policy):
    seen = Counter()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        cases(policy),
        st.sampled_from(["max", "pow2", "oracle", "grow", "grow"]),
        st.sampled_from(["buddy", "first_fit", "best_fit"]),
        st.booleans(),
    )
    def check(case, reservation, placement, whole):
        def make(geometry):
            # `max` needs a place for the longest that there may be.
            tokens = MAX_LEN + geometry.capacity_tokens if whole else geometry.capacity_tokens
            pool = Geometry(tokens, geometry.max_seqs, geometry.max_len, layers=3)
            return lambda: Contiguous(pool, reservation=reservation, placement=placement)

        held_to_each_other(make, policy, seen, case)

    check()
    wanted = ("never fits", "finished", "preemptions", "refusals", "waits", "copied", "wasted")
    assert all(seen[what] for what in wanted), seen


@pytest.mark.parametrize("policy", POLICIES)
def test_virtual_steps_are_those_of_the_step_engine(policy):
    seen = Counter()

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        cases(policy),
        st.sampled_from(["alias", "copy"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([512, 224]),
    )
    def check(case, sharing, deferred, background, head_dim):
        def make(geometry):
            # A page-group of 64 KiB holds 8 tokens of it, or 18 and a part.
            tokens = -(-geometry.capacity_tokens // 19) * 19
            pool = Geometry(tokens, 9, MAX_LEN, layers=2, kv_heads=8, head_dim=head_dim)
            knobs = {"sharing": sharing, "deferred": deferred, "background": background}
            return lambda: Virtual(pool, page_size="64KiB", **knobs)

        held_to_each_other(make, policy, seen, case)

    check()
    wanted = ("never fits", "finished", "preemptions", "refusals", "waits", "maps", "unmaps")
    assert all(seen[what] for what in wanted), seen


ALIKE = {
    "paged": lambda pool: Paged(pool, block_size=4),
    "contiguous": lambda pool: Contiguous(pool, reservation="grow"),
    "virtual": lambda pool: Virtual(pool, page_size="64KiB"),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ALIKE)
def test_steps_of_sequences_that_are_all_alike_are_equal(name, policy):
    """All need their next block at once: several are preempted in one step, or mapped ahead."""
    requests = table([3] + [4] * 25, [30] * 26)  # the first needs one after the others
    for tokens in (64, 112, 2000):
        pool = Geometry(tokens, 26, MAX_LEN, layers=2, kv_heads=8, head_dim=512)
        log = compare(lambda pool=pool: ALIKE[name](pool), requests, policy=policy)
        assert (log.timeline["preemptions"] > 1).any() or tokens > 64
