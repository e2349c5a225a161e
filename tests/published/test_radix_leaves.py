"""Why `radix` hits less than `hash` under load: the experiment of docs/prefix.md.

The same tree with its leaves given up block by block, as an order of the test's own, is compared
with the two indexes.  It does what `hash` does, to the block, so that whole leaves are the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import pytest

from allocators.paged import Paged
from allocators.prefix import radix_index
from allocators.prefix.leaf_order import ROOT, LeafOrder

#: in the pool of docs/prefix.md, whatever the default pool is
CONVERSATION = ("+workload=conversation", "model=opt-13b", "allocator=[paged]", "kv_tokens=15805")


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


@contextmanager
def hits_counted() -> Iterator[dict[str, int]]:
    """Hit tokens of first admissions and of returns, counted while a comparison runs."""
    counts, seen = {"first": 0, "return": 0}, set()

    def admit(self, rows, prompt, demand, original=Paged.admit):
        grant = original(self, rows, prompt, demand)
        if grant is not None:
            stream = prompt.token_ids.tobytes()
            counts["return" if stream in seen else "first"] += grant.cached_tokens
            seen.add(stream)
        return grant

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Paged, "admit", admit)
        yield counts


def run(compare, index: str) -> dict:
    return compare(*CONVERSATION, f"allocators.paged.prefix_index={index}")[0]["paged"]


@pytest.fixture(scope="module")
def by_hash(compare) -> tuple[dict, dict[str, int]]:
    """The metrics with `hash`, and its hits."""
    with hits_counted() as hits:
        return run(compare, "hash"), hits


@pytest.fixture(scope="module")
def by_radix(compare) -> tuple[dict, dict[str, int], list[tuple[int, int, int]]]:
    """The metrics with `radix`, its hits, and what each of its evictions took."""
    Counted.seen = []
    with hits_counted() as hits, pytest.MonkeyPatch.context() as patch:
        patch.setattr(radix_index, "LeafOrder", Counted)
        return run(compare, "radix"), hits, Counted.seen


def test_given_up_block_by_block_the_tree_does_what_hash_does(compare, by_hash, monkeypatch):
    metrics, _ = by_hash
    assert round(100 * metrics["prefix_hit_rate"], 1) == 18.0
    monkeypatch.setattr(radix_index, "LeafOrder", BlockByBlock)
    blocks = run(compare, "radix")
    for count in ("hit_tokens", "evictions", "preemptions", "steps"):
        assert blocks[count] == metrics[count], count


def test_a_few_blocks_asked_for_cost_the_whole_cache(by_radix):
    metrics, _, evictions = by_radix
    assert round(100 * metrics["prefix_hit_rate"], 1) == 4.2
    asked, cached, went = zip(*evictions, strict=True)
    assert (len(asked), median(asked), median(cached)) == (2191, 3, 32)
    assert round(sum(went) / sum(asked), 1) == 2.5
    whole = sum(a == b for a, b in zip(cached, went, strict=True))
    assert round(100 * whole / len(went)) == 61


def test_it_is_the_preempted_that_find_less_when_they_return(by_hash, by_radix):
    assert by_hash[1] == {"first": 3_248, "return": 158_736}
    assert by_radix[1] == {"first": 3_248, "return": 33_808}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("index", "first", "returns"), [("hash", 123_568, 92_192), ("radix", 120_624, 26_352)]
)
def test_shared_prefixes_are_found_by_both(compare, shared_file, index, first, returns):
    requests = shared_file("vllm_hybrid/requests.jsonl.gz")
    with hits_counted() as hits:
        compare(
            "+workload=trace", f"workload.path={requests}", "model=qwen2.5-7b", "engine=chunked",
            "engine.max_len=16384", "kv_tokens=32768", "allocator=[paged]",
            f"allocators.paged.prefix_index={index}",
        )  # fmt: skip
    assert hits == {"first": first, "return": returns}
