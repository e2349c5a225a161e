"""Eviction orders against slow models, the radix tree's leaves, and the names of the knobs."""

from __future__ import annotations

import numpy as np
import pytest

from allocators.base import Demand, Prompt, Unsupported
from allocators.prefix.free_order import ByAgePool, UnkeyedFirstPool
from allocators.prefix.lru_queue import LruQueue
from allocators.prefix.orders import FifoOrder, LfuOrder
from allocators.prefix.s3fifo import S3FifoOrder
from tests.allocators.prefix.streams import Streams, pool


class SlowOrder:
    """Lists of pages, scanned from the front for the first that is free."""

    def __init__(self, num_pages: int) -> None:
        self.pages = num_pages
        self.free: set[int] = set()
        self.hits: dict[int, int] = {}
        self.queue: list[int] = []

    def inserted(self, page: int, key: int) -> None:
        self.hits[page] = 0
        self.queue.append(page)

    def hit(self, page: int) -> None:
        self.hits[page] += 1

    def freed(self, page: int) -> None:
        self.free.add(page)

    def victim(self) -> int:
        page = self.choose()
        self.free.discard(page)
        return page


class SlowFifo(SlowOrder):
    def choose(self) -> int:
        page = next(p for p in self.queue if p in self.free)
        self.queue.remove(page)
        return page


class SlowLfu(SlowOrder):
    def freed(self, page: int) -> None:
        super().freed(page)
        self.queue.remove(page)
        self.queue.append(page)

    def choose(self) -> int:
        page = min((p for p in self.queue if p in self.free), key=lambda p: self.hits[p])
        self.queue.remove(page)
        return page


class SlowS3Fifo(SlowOrder):
    def __init__(self, num_pages: int) -> None:
        super().__init__(num_pages)
        self.main: list[int] = []
        self.ghosts: list[int] = []
        self.key: dict[int, int] = {}

    def inserted(self, page: int, key: int) -> None:
        self.hits[page], self.key[page] = 0, key
        (self.main if key in self.ghosts else self.queue).append(page)
        if key in self.ghosts:
            self.ghosts.remove(key)

    def hit(self, page: int) -> None:
        self.hits[page] = min(3, self.hits[page] + 1)

    def choose(self) -> int:
        target = max(1, self.pages // 10)
        while True:
            small = [p for p in self.queue if p in self.free]
            main = [p for p in self.main if p in self.free]
            if small and (not main or len(self.queue) >= target):
                page = small[0]
                self.queue.remove(page)
                if self.hits[page] > 1:
                    self.hits[page] = 0
                    self.main.append(page)
                    continue
                if self.key[page] not in self.ghosts:
                    self.ghosts = [*self.ghosts, self.key[page]][-(self.pages - target) :]
                return page
            page = main[0]
            self.main.remove(page)
            if not self.hits[page]:
                return page
            self.hits[page] -= 1
            self.main.append(page)


@pytest.mark.parametrize(
    ("order", "slow"),
    [(FifoOrder, SlowFifo), (LfuOrder, SlowLfu), (S3FifoOrder, SlowS3Fifo)],
)
def test_victims_are_those_of_a_slow_model(order, slow):
    evictions = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(5, 40))
        real, model = order(n), slow(n)
        blank, held, free = list(range(n)), [], []
        for _ in range(600):
            kind = rng.choice(["insert", "hit", "free", "evict"], p=[0.3, 0.3, 0.25, 0.15])
            if kind == "insert" and blank:
                page, key = blank.pop(), int(rng.integers(3 * n))
                real.inserted([page], [key])
                model.inserted(page, key)
                held.append(page)
            elif kind == "hit" and (held or free):
                page = [*held, *free][int(rng.integers(len(held) + len(free)))]
                real.hit([page])
                model.hit(page)
                if page in free:  # a hit takes it out of the free ones
                    free.remove(page)
                    held.append(page)
                    real.free[page] = False
                    model.free.discard(page)
            elif kind == "free" and held:
                page = held.pop(int(rng.integers(len(held))))
                real.free[page] = True
                real.freed([page])
                model.freed(page)
                free.append(page)
            elif kind == "evict" and free:
                wanted = int(rng.integers(1, len(free) + 1))
                got = real.victims(wanted)
                assert got == [model.victim() for _ in range(wanted)]
                evictions += wanted
                free = [page for page in free if page not in got]
                blank += got
    assert evictions > 1000


def test_the_queue_agrees_with_a_list():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 200))
        queue, slow, out = LruQueue(n), list(range(n)), []
        for _ in range(300):
            kind = int(rng.integers(3))
            if kind == 0:
                k = int(rng.integers(len(slow) + 1))
                assert queue.take(k).tolist() == slow[:k]
                out, slow = out + slow[:k], slow[k:]
            elif kind == 1 and slow:
                chosen = rng.permutation(slow)[: int(rng.integers(1, len(slow) + 1))]
                queue.remove(chosen)
                slow = [page for page in slow if page not in chosen]
                out += chosen.tolist()
            elif out:
                back = rng.permutation(out)[: int(rng.integers(1, len(out) + 1))]
                queue.give(back)
                slow += back.tolist()
                out = [page for page in out if page not in back]
            assert queue.pages().tolist() == slow
            assert len(queue) == len(slow)


def test_an_empty_queue_can_be_filled():
    queue = LruQueue(3, empty=True)
    assert (len(queue), queue.pages().tolist()) == (0, [])
    queue.give(np.array([2, 0, 1]))
    assert queue.take(3).tolist() == [2, 0, 1]


@pytest.mark.parametrize("kind", [ByAgePool, UnkeyedFirstPool])
@pytest.mark.parametrize("blank", [0, 1, 64, 65, 299, 300])
def test_a_pool_knows_how_many_pages_go_before_the_first_eviction(kind, blank):
    pages = kind(300)
    taken = pages.take(300)
    pages.keyed[taken[blank:]] = True
    pages.give(taken)
    assert pages.before_eviction() == blank
    pages.take(blank)
    assert pages.evictions == 0
    if blank < 300:
        pages.take(1)
        assert pages.evictions == 1


def test_radix_and_hash_hit_alike_while_nothing_is_evicted():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        both = pool(400, 3, "hash"), pool(400, 3, "radix")
        streams, hits = Streams(), 0
        for step in range(60):
            tokens = int(rng.integers(1, 30))
            ids = streams.make(int(rng.integers(3)), int(rng.integers(30)), 36)
            row, grown = step % 8, int(rng.integers(0, 6))
            granted = []
            for real in both:
                if real.active[row]:
                    real.release(np.array([row]))
                prompt = Prompt(tokens, ids)
                granted.append(real.admit(np.array([row]), prompt, Demand(tokens, 1)).cached_tokens)
                if grown:
                    real.grow(np.array([row]), grown)
                real.check()
                assert real.evictions == 0
                if step == 59:
                    break
            assert len(set(granted)) == 1
            hits += granted[0]
        assert hits


def finish(real, ids: np.ndarray) -> int:
    grant = real.admit(np.array([0]), Prompt(len(ids), ids), Demand(len(ids), 1))
    real.release(np.array([0]))
    return grant.cached_tokens


def test_radix_evicts_a_whole_leaf_where_hash_takes_single_blocks():
    left = {}
    for index in ("hash", "radix"):
        real = pool(10, 2, index)
        finish(real, np.arange(9))  # 4 full blocks and a blank one
        finish(real, np.arange(100, 109))
        finish(real, np.arange(200, 205))  # needs 3 blocks, of which two are blank
        left[index] = [real.lookup(Prompt(9, np.arange(first, first + 9))) for first in (0, 100)]
    assert left == {"hash": [6, 8], "radix": [0, 8]}


def test_a_radix_leaf_ends_where_a_later_request_branched_off():
    real = pool(9, 2, "radix")
    first, second = np.arange(9), np.arange(9)
    second[4:] += 50
    finish(real, first)  # blocks 0 1 2 3
    finish(real, second)  # hits 0 1, adds 2' 3'
    finish(real, np.arange(100, 109))  # 5 blocks: 3 are blank, the older leaf (2, 3) goes whole
    assert real.lookup(Prompt(9, first)) == 4
    assert real.lookup(Prompt(9, second)) == 8


def test_the_deepest_block_of_a_prefix_is_evicted_first():
    real = pool(6, 2)
    finish(real, np.arange(9))
    finish(real, np.arange(100, 107))  # 4 blocks: 2 are blank
    assert real.lookup(Prompt(9, np.arange(9))) == 4


@pytest.mark.parametrize(
    "knob", [{"index": "tree"}, {"eviction": "random"}, {"free_order": "lifo"}]
)
def test_unknown_names_are_refused_with_those_allowed(knob):
    with pytest.raises(ValueError, match="must be one of"):
        pool(4, 2, **knob)


def test_radix_with_s3fifo_says_why_not():
    with pytest.raises(Unsupported, match="whole leaves"):
        pool(4, 2, "radix", "s3fifo")
