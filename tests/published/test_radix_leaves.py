"""Why `radix` hits less than `hash` under load: the experiment of docs/prefix.md.

The same tree with its leaves given up block by block, as an order of the test's own, is compared
with the two indexes.  What is left between it and `hash` is the order alone.
"""

from __future__ import annotations

from statistics import median

import pytest

from allocators.paged import Paged
from allocators.prefix import radix_index
from allocators.prefix.leaf_order import ROOT, LeafOrder

CONVERSATION = ("+workload=conversation", "model=opt-13b", "allocator=[paged]")


class BlockByBlock(LeafOrder):
    """Of the leaf that is next only as many blocks go as are asked for, the deepest first."""

    def _take_leaf(self, page: int, chosen: list[int]) -> None:
        chosen.append(page)
        self.free[page] = False
        top, above = self._top[page], self._detach(page)
        if page != top:
            self._end[top] = above
        if above != ROOT:
            self._offer(above)


class Counted(LeafOrder):
    """Notes for each eviction how many blocks were asked for, were cached, and went."""

    seen: list[tuple[int, int, int]]

    def victims(self, n: int) -> list[int]:
        cached = int(self.free.sum())
        chosen = super().victims(n)
        self.seen.append((n, cached, len(chosen)))
        return chosen


def run(compare, index: str) -> dict:
    return compare(*CONVERSATION, f"allocators.paged.prefix_index={index}")[0]["paged"]


def test_given_up_block_by_block_the_tree_hits_what_hash_hits(compare, monkeypatch):
    by_hash = run(compare, "hash")
    monkeypatch.setattr(radix_index, "LeafOrder", BlockByBlock)
    blocks = run(compare, "radix")
    assert round(100 * by_hash["prefix_hit_rate"], 1) == 17.4
    assert round(100 * blocks["prefix_hit_rate"], 1) == 17.5


def test_a_few_blocks_asked_for_cost_the_whole_cache(compare, monkeypatch):
    monkeypatch.setattr(radix_index, "LeafOrder", Counted)
    Counted.seen = []
    leaves = run(compare, "radix")
    assert round(100 * leaves["prefix_hit_rate"], 1) == 3.1
    asked, cached, went = zip(*Counted.seen, strict=True)
    assert (len(asked), median(asked), median(cached)) == (2172, 3, 32)
    assert round(sum(went) / sum(asked), 1) == 2.5
    whole = sum(a == b for a, b in zip(cached, went, strict=True))
    assert round(100 * whole / len(went)) == 62


@pytest.fixture
def hits(monkeypatch) -> dict[str, int]:
    """Hit tokens of first admissions and of returns, counted while a comparison runs."""
    counts, seen = {"first": 0, "return": 0}, set()

    def admit(self, rows, prompt, demand, original=Paged.admit):
        grant = original(self, rows, prompt, demand)
        if grant is not None:
            stream = prompt.token_ids.tobytes()
            counts["return" if stream in seen else "first"] += grant.cached_tokens
            seen.add(stream)
        return grant

    monkeypatch.setattr(Paged, "admit", admit)
    return counts


@pytest.mark.parametrize(("index", "returns"), [("hash", 152_064), ("radix", 24_720)])
def test_it_is_the_preempted_that_find_less_when_they_return(compare, hits, index, returns):
    run(compare, index)
    assert hits == {"first": 3_248, "return": returns}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("index", "first", "returns"), [("hash", 123_376, 91_872), ("radix", 120_624, 26_352)]
)
def test_shared_prefixes_are_found_by_both(compare, hits, shared_data, index, first, returns):
    compare(
        "+workload=trace", f"workload.path={shared_data}/vllm_hybrid/requests.jsonl.gz",
        "engine=chunked", "engine.max_len=16384", "kv_tokens=32768", "allocator=[paged]",
        f"allocators.paged.prefix_index={index}",
    )  # fmt: skip
    assert hits == {"first": first, "return": returns}
