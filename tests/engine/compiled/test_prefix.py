"""The loop over arrays finds, keys and evicts the very blocks that `Paged` with an index does."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.paged import Paged
from allocators.rules.hashed import ORDERS
from harness.engine.compiled import keys
from tests.engine.cases import roofline, table
from tests.engine.compiled.both import FRONT_ENDS, compare
from tests.stories import tell

MAX_LEN = 40
POLICIES = ("chunked", "continuous", "orca")


def computing(allocator):
    """Return the executor of a device on which the attention of a piece takes long to compute."""
    return roofline(allocator, prefill_efficiency=1e-5)


@st.composite
def cases(draw, policy):
    """Draw requests of which some begin alike, a tight pool and limits."""
    outputs = draw(st.sampled_from([st.integers(1, 4), st.integers(8, 20)]))
    request = st.tuples(st.integers(1, 20), outputs, st.integers(0, 2), st.integers(0, 20))
    drawn = draw(st.lists(request, min_size=3, max_size=12))
    prompts, answers, families, common = zip(*drawn, strict=True)
    gaps = draw(st.lists(st.integers(0, 9), min_size=len(drawn), max_size=len(drawn)))
    requests = table(prompts, answers, np.cumsum(gaps) * draw(st.sampled_from([0.0, 5e-4, 4e-3])))
    requests.token_ids = [
        np.where(np.arange(n) < shared, family * 100 + np.arange(n), 1000 * i + np.arange(n) + 1000)
        for i, (n, family, shared) in enumerate(zip(prompts, families, common, strict=True))
    ]
    options = {
        "policy": policy,
        "max_num_batched_tokens": draw(st.sampled_from([1, 3, 12, 30, 2048])),
        "max_num_seqs": draw(st.sampled_from([2, 9, 9])),
        "skip_ahead": draw(st.booleans()),
    }
    if policy != "chunked":
        options["expected_output_tokens"] = draw(st.sampled_from([0, 0, 4, 30]))
    longest = max(prompt + output - 1 for prompt, output in zip(prompts, answers, strict=True))
    tokens = max(1, longest + draw(st.sampled_from([-5, 0, 0, 2, 5, 9, 16, 24])))
    return requests, tokens, draw(st.sampled_from(FRONT_ENDS)), options


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_are_found_keyed_and_evicted_as_by_the_step_engine(policy, monkeypatch):
    monkeypatch.setattr(keys, "BLOCKS_AHEAD", 5)
    seen = Counter()

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(
        cases(policy),
        st.sampled_from([1, 2, 4, 4, 7]),
        st.sampled_from([0.0, 0.0, 0.1]),
        st.sampled_from(list(ORDERS)),
        st.sampled_from([roofline, computing]),
    )
    def check(case, block, watermark, order, executor):
        requests, tokens, front_end, options = case
        pool = Geometry(-(-tokens // block) * block, 9, MAX_LEN, layers=3)
        knobs = {"block_size": block, "watermark": watermark, "prefix_index": "hash"}
        knobs["eviction"], knobs["free_order"] = order
        options["executor"] = executor
        log = compare(lambda: Paged(pool, **knobs), requests, front_end, **options)
        if log is None:
            seen["never fits"] += 1
            return
        t = log.timeline
        seen["finished"] += 1
        seen["evictions"] += log.totals["evictions"]
        seen[order] += log.totals["evictions"]
        seen["hits"] += int(t["hit_tokens"].sum())
        seen["cached"] += int(t["cached_bytes"].sum())
        seen["preemptions"] += int(t["preemptions"].sum())
        seen["refusals"] += int(t["saturated"].sum())
        seen["cached in a gap"] += log.totals["gap_cached_byte_s"] > 0
        seen["wasted"] += log.totals["wasted_tokens"]

    wanted = ("never fits", "finished", "evictions", "hits", "cached", "preemptions", "refusals")
    wanted = (*wanted, *ORDERS, "cached in a gap", "wasted")
    tell(check, lambda: all(seen[what] for what in wanted))
    assert all(seen[what] for what in wanted), seen
