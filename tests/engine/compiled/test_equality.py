"""The loop over arrays takes the very steps of the step engine, in tight pools too."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.config import SamplingSpec
from harness.results.runlog import LIMITS
from tests.engine.cases import table
from tests.engine.compiled.both import FRONT_ENDS, GREEDY, compare
from tests.stories import tell

MAX_LEN = 40
#: of buddies, the one that holds the longest
EXTENT = 64
POLICIES = ("chunked", "continuous", "orca", "static")
#: who serves groups of several sequences, and in which mode
GROUPS = [
    (policy, mode)
    for policy in POLICIES
    for mode in ("parallel", "beam")
    if (policy, mode) != ("chunked", "beam")  # beams are refused there
]
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


@st.composite
def groups(draw, policy, mode, family):
    """Draw as `cases` does, with groups of two to four, in a pool for little more than one.

    What a group needs depends on how much of it its sequences share.
    """
    case = draw(cases(policy))
    n = draw(st.integers(2, 4))
    options, requests = case["options"], case["requests"]
    options["max_num_seqs"] = draw(st.sampled_from([n, 9, 12, 12]))
    options["max_num_batched_tokens"] = max(n, options["max_num_batched_tokens"])
    switch = draw(st.sampled_from([0.1, 0.5]))
    case["sampling"] = SamplingSpec(mode, n=n, width=n, beam_switch=switch)
    case["seed"] = draw(st.integers(0, 3))
    prompts, grown = requests.prompt_tokens, requests.output_tokens - 1
    longest = int((prompts + grown).max())
    if family == "contiguous":
        each = draw(st.sampled_from([longest, EXTENT, EXTENT, EXTENT + EXTENT // n]))
        case["tokens"] += n * each - longest
    elif family == "virtual":
        case["tokens"] += n * draw(st.sampled_from([longest, longest, longest + 19])) - longest
    elif draw(st.booleans()):  # else less, with beams that have much in common
        case["tokens"] += int((prompts + n * grown).max()) - longest
    return case


def held_to_each_other(make, seen, case):
    """Run a case both ways; count what happened in it."""
    sampling, seed = case.get("sampling", GREEDY), case.get("seed", 0)
    geometry = Geometry(max(1, case["tokens"]), 12, MAX_LEN, layers=3)
    log = compare(
        make(geometry),
        case["requests"],
        case["front_end"],
        sampling=sampling,
        seed=seed,
        **case["options"],
    )
    if log is None:
        seen["never fits"] += 1
        return
    t = log.timeline
    seen["finished"] += 1
    seen["preemptions"] += int(t["preemptions"].sum())
    seen["refusals"] += int(t["saturated"].sum())
    for limit in LIMITS:
        seen[limit] += int(t[f"limited_by_{limit}"].sum())
    seen["waits"] += log.totals["gap_s"] > 0
    seen["wasted"] += log.totals["wasted_tokens"]
    seen["maps"] += log.totals.get("maps", 0)
    seen["unmaps"] += log.totals.get("unmaps", 0)
    seen["copied"] += int(t["copied_bytes"].sum())
    seen["shared"] += int((t["logical_blocks"] > t["blocks_in_use"]).sum())


# -- pools -------------------------------------------------------------------------------------
def paged_pools(geometry, block, watermark):
    tokens = -(-geometry.capacity_tokens // block) * block
    pool = replace(geometry, capacity_tokens=tokens)
    return lambda: Paged(pool, block_size=block, watermark=watermark)


def contiguous_pools(geometry, reservation, placement, whole):
    # `max` needs a place for the longest that there may be, and a buddy for more than that.
    tokens = geometry.capacity_tokens + (MAX_LEN if whole else 0)
    pool = replace(geometry, capacity_tokens=tokens)
    return lambda: Contiguous(pool, reservation=reservation, placement=placement)


def virtual_pools(geometry, sharing, deferred, background, head_dim):
    # A page-group of 64 KiB holds 8 tokens of it, or 18 and a part.
    tokens = -(-geometry.capacity_tokens // 19) * 19
    pool = Geometry(tokens, geometry.max_seqs, MAX_LEN, layers=2, kv_heads=8, head_dim=head_dim)
    knobs = {"sharing": sharing, "deferred": deferred, "background": background}
    return lambda: Virtual(pool, page_size="64KiB", **knobs)


PAGED = st.tuples(st.sampled_from([1, 2, 4, 16]), st.sampled_from([0.0, 0.1]))
CONTIGUOUS = st.tuples(
    st.sampled_from(["grow", "grow", "grow", "grow", "pow2", "oracle", "max"]),
    st.sampled_from(["buddy", "first_fit", "best_fit"]),
    st.booleans(),
)
VIRTUAL = st.tuples(
    st.sampled_from(["alias", "copy"]), st.booleans(), st.booleans(), st.sampled_from([512, 224])
)
FAMILIES = {
    "paged": (paged_pools, PAGED),
    "contiguous": (contiguous_pools, CONTIGUOUS),
    "virtual": (virtual_pools, VIRTUAL),
}
EVER = ("never fits", "finished", "preemptions", "refusals", "waits")
WANTED = {
    "paged": EVER,
    "contiguous": (*EVER, "copied", "wasted"),
    "virtual": (*EVER, "maps", "unmaps"),
}


def check_all(family, drawn, wanted):
    """Hold the two loops to each other in drawn cases and pools, until all `wanted` happened."""
    seen = Counter()
    pools, knobs = FAMILIES[family]

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(drawn, knobs)
    def check(case, knobs):
        held_to_each_other(lambda geometry: pools(geometry, *knobs), seen, case)

    tell(check, lambda: all(seen[what] for what in wanted))
    assert all(seen[what] for what in wanted), seen


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_are_those_of_the_step_engine(family, policy):
    limits = set(LIMITS) - {"sequences" if policy == "static" else "policy"}
    check_all(family, cases(policy), (*WANTED[family], *limits))


@pytest.mark.parametrize(("policy", "mode"), GROUPS)
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_groups_are_those_of_the_step_engine(family, policy, mode):
    wanted = (*WANTED[family], "copied", *["shared"] * (family != "contiguous"))
    check_all(family, groups(policy, mode, family), wanted)


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
