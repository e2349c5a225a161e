"""The rules of docs/scheduling.md, one after the other, with lists, dicts and block objects.

Slow and literal on purpose: nothing of the harness is used, no step is skipped, no array is taken.
"""

from collections import Counter
from dataclasses import dataclass, field


class CannotFit(Exception):
    """The empty pool cannot hold what the head of the queue has by now."""


@dataclass(eq=False)
class Block:
    number: int
    holders: int = 0
    key: tuple | None = None


@dataclass(eq=False)
class Request:
    number: int
    tokens: list
    output: int
    arrival_step: int
    prompt: int = 0
    computed: int = 0
    lost: int = 0
    blocks: list = field(default_factory=list)

    def __post_init__(self):
        self.prompt = len(self.tokens)

    @property
    def due(self):
        return len(self.tokens) - self.computed

    @property
    def sampled(self):
        return len(self.tokens) - self.prompt


class Pool:
    """All blocks; `free` in the order in which they will be taken."""

    def __init__(self, blocks, block_tokens, caching):
        self.free = [Block(number) for number in range(blocks)]
        self.blocks = list(self.free)
        self.size = block_tokens
        self.caching = caching
        self.keyed = {}  # the tokens up to a block's end -> the blocks that hold it, oldest first
        self.evictions = 0

    def blocks_for(self, tokens):
        return -(-tokens // self.size)

    def find(self, request):
        found = []
        while self.caching:
            end = (len(found) + 1) * self.size
            holders = self.keyed.get(tuple(request.tokens[:end]), [])
            if end >= len(request.tokens) or not holders:
                break
            found.append(holders[0])
        return found

    def fits(self, request, tokens, found=()):
        """Whether blocks for `tokens` slots could be taken now, `found` being shared."""
        fresh = self.blocks_for(tokens) - len(request.blocks) - len(found)
        revived = sum(1 for block in found if not block.holders)
        return fresh + revived <= len(self.free)

    def extend(self, request, tokens, found=()):
        """Let `request` compute up to `tokens` of its tokens."""
        for block in found:
            if not block.holders:
                self.free.remove(block)
            block.holders += 1
            request.blocks.append(block)
        while len(request.blocks) < self.blocks_for(tokens):
            block = self.free.pop(0)
            if block.key is not None:
                self.evictions += 1
                self.keyed[block.key].remove(block)
                block.key = None
            block.holders = 1
            request.blocks.append(block)
        request.computed = tokens
        for i in range(tokens // self.size if self.caching else 0):
            block, key = request.blocks[i], tuple(request.tokens[: (i + 1) * self.size])
            if block.key is None:
                block.key = key
                self.keyed.setdefault(key, []).append(block)

    def release(self, request):
        for block in reversed(request.blocks):
            block.holders -= 1
            if not block.holders:
                self.free.append(block)
        request.blocks = []

    @property
    def in_use(self):
        return sum(1 for block in self.blocks if block.holders)

    @property
    def cached(self):
        return sum(1 for block in self.free if block.key is not None)


class Model:
    """`step` runs one step and returns what the timeline has of it."""

    def __init__(self, requests, pool, budget, max_seqs):
        self.to_come = list(requests)
        self.pool, self.budget, self.max_seqs = pool, budget, max_seqs
        self.waiting, self.running = [], []
        self.at = 0
        self.wasted = 0
        self.seen = Counter()

    def arrive(self):
        while self.to_come and self.to_come[0].arrival_step <= self.at:
            self.waiting.append(self.to_come.pop(0))

    def step(self):
        self.arrive()
        if not self.running and not self.waiting:
            self.at = self.to_come[0].arrival_step
            self.arrive()
        self.left, self.hit, self.preempted, self.starved = self.budget, 0, 0, False
        self.scheduled = []
        self.schedule_running()
        if not self.preempted:
            self.schedule_waiting()
        row = {
            "batched_tokens": self.budget - self.left,
            "blocks_in_use": self.pool.in_use,
            "preemptions": self.preempted,
            "hit_tokens": self.hit,
            "cached": self.pool.cached,
            "saturated": self.starved,
        }
        held = {r.number: [block.number for block in r.blocks] for r in self.running}
        for request in self.scheduled:
            if not request.due:
                self.sample(request)
        self.at += 1
        here = sum(1 for request in self.to_come if request.arrival_step <= self.at)
        row |= {"running": len(self.running), "waiting": len(self.waiting) + here}
        return row, held

    def schedule_running(self):
        at = 0
        while at < len(self.running) and self.left:
            request = self.running[at]
            tokens = min(request.due, self.left)
            while not self.pool.fits(request, request.computed + tokens):
                victim = self.running.pop()
                self.pool.release(victim)
                assert victim not in self.scheduled
                self.seen["preempted in its prompt"] += victim.computed < victim.prompt
                self.seen["preempted itself"] += victim is request
                self.seen["preempted with output"] += victim.sampled > 0
                victim.lost, victim.computed = victim.computed, 0
                self.waiting.insert(0, victim)
                self.preempted += 1
                self.starved = True
                if victim is request:
                    return
            self.pool.extend(request, request.computed + tokens)
            self.seen["chunk of a running prompt"] += tokens > 1
            self.scheduled.append(request)
            self.left -= tokens
            at += 1
        # Each was admitted with a token of the budget left, and only the last has several to go.
        assert at == len(self.running), "running, and left out for lack of budget"

    def schedule_waiting(self):
        while self.waiting and self.left and len(self.running) < self.max_seqs:
            request = self.waiting[0]
            found = self.pool.find(request)
            hit = len(found) * self.pool.size
            tokens = min(len(request.tokens) - hit, self.left)
            if not self.pool.fits(request, len(request.tokens), found):
                if not self.running:
                    raise CannotFit
                self.seen["only a piece would fit"] += self.pool.fits(request, hit + tokens, found)
                self.starved = True
                return
            self.seen["hit on a referenced block"] += any(block.holders for block in found)
            self.seen["hit on a cached block"] += any(not block.holders for block in found)
            self.seen["hit on its own output"] += hit > request.prompt
            self.seen["hit after a preemption"] += hit > 0 and request.lost > 0
            self.pool.extend(request, hit + tokens, found)
            self.wasted += max(0, request.lost - hit)
            request.lost = 0
            self.hit += hit
            self.left -= tokens
            self.running.append(self.waiting.pop(0))
            self.scheduled.append(request)

    def sample(self, request):
        request.tokens.append(("output", request.number, request.sampled))
        if request.sampled == request.output:
            self.running.remove(request)
            self.pool.release(request)
