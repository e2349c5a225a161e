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
    """`tables` has the blocks of each sequence that exists; all are `computed` tokens long."""

    number: int
    tokens: list  # those whose identity is known: of a group the prompt, else the output too
    output: int
    arrival_step: int
    sequences: int = 1
    prompt: int = 0
    sampled: int = 0
    computed: int = 0
    lost: int = 0
    tables: list = field(default_factory=lambda: [[]])

    def __post_init__(self):
        self.prompt = len(self.tokens)

    @property
    def known(self):
        return self.prompt + self.sampled

    @property
    def forked(self):
        return len(self.tables) == self.sequences

    @property
    def target(self):
        """How long the sequences that exist are to become."""
        return self.known if self.forked else self.prompt

    @property
    def total_computed(self):
        private = max(0, self.computed - self.prompt)
        return self.computed - private + self.sequences * private


class Pool:
    """All blocks; `free` in the order in which they will be taken.

    A block that is given back without a key goes to the front of `free` where there is `caching`,
    unless `by_age`.
    """

    def __init__(self, blocks, block_tokens, caching, by_age=False):
        self.free = [Block(number) for number in range(blocks)]
        self.blocks = list(self.free)
        self.size = block_tokens
        self.caching, self.by_age = caching, by_age or not caching
        self.keyed = {}  # the tokens up to a block's end -> the blocks that hold it, oldest first
        self.evictions = 0
        self.copied_slots = 0

    def blocks_for(self, tokens):
        return -(-tokens // self.size)

    def find(self, request):
        known = request.tokens[: request.target]
        found = []
        while self.caching:
            end = (len(found) + 1) * self.size
            holders = self.keyed.get(tuple(known[:end]), [])
            if end >= len(known) or not holders:
                break
            found.append(holders[0])
        return found

    # -- admission -------------------------------------------------------------------------------
    def admits(self, request, tokens, found):
        """Whether a request of `tokens`, which starts from `found`, would fit now."""
        needed = self.blocks_for(tokens)
        if request.sequences > 1 and tokens > request.prompt:
            common = request.prompt // self.size
            needed = common + request.sequences * (needed - common)
        revived = sum(1 for block in found if not block.holders)
        return needed - len(found) + revived <= len(self.free)

    def hold(self, request, found):
        for block in found:
            if not block.holders:
                self.free.remove(block)
            block.holders += 1
            request.tables[0].append(block)

    # -- growth ----------------------------------------------------------------------------------
    def writers_of_shared(self, request):
        """How many sequences must copy the block they are about to write: all but the last."""
        if not request.computed % self.size:
            return 0
        tails = [table[-1] for table in request.tables]
        assert all(tail.holders == tails.count(tail) for tail in tails)
        return len(tails) - len(set(tails))

    def fits(self, request, tokens):
        """Whether blocks for `tokens` slots of each sequence could be taken now."""
        fresh = sum(self.blocks_for(tokens) - len(table) for table in request.tables)
        return fresh + self.writers_of_shared(request) <= len(self.free)

    def take(self):
        block = self.free.pop(0)
        if block.key is not None:
            self.evictions += 1
            self.keyed[block.key].remove(block)
            block.key = None
        block.holders = 1
        return block

    def extend(self, request, tokens):
        """Let each sequence of `request` compute up to `tokens` of its tokens."""
        if request.computed % self.size:
            for table in request.tables:
                if table[-1].holders > 1:  # copy on write
                    table[-1].holders -= 1
                    table[-1] = self.take()
                    self.copied_slots += request.computed % self.size
        while len(request.tables[-1]) < self.blocks_for(tokens):
            for table in request.tables:
                table.append(self.take())
        request.computed = tokens
        for i in range(min(tokens, len(request.tokens)) // self.size if self.caching else 0):
            block, key = request.tables[0][i], tuple(request.tokens[: (i + 1) * self.size])
            if block.key is None:
                block.key = key
                self.keyed.setdefault(key, []).append(block)

    def fork(self, request):
        while not request.forked:
            request.tables.append(list(request.tables[0]))
            for block in request.tables[0]:
                block.holders += 1

    def release(self, request):
        for table in request.tables:
            freed = []
            for block in reversed(table):
                block.holders -= 1
                if not block.holders:
                    freed.append(block)
            first = [] if self.by_age else [block for block in freed if block.key is None]
            self.free = first + self.free + [block for block in freed if block not in first]
        request.tables = [[]]

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
        self.left, self.hit, self.preempted, self.saturated = self.budget, 0, 0, False
        copied_before = self.pool.copied_slots
        self.scheduled = []
        left_out = self.schedule_running()
        if not self.preempted and not left_out:
            self.schedule_waiting()
        row = {
            "batched_tokens": self.budget - self.left,
            "blocks_in_use": self.pool.in_use,
            "preemptions": self.preempted,
            "hit_tokens": self.hit,
            "copied_slots": self.pool.copied_slots - copied_before,
            "logical_blocks": sum(len(table) for r in self.running for table in r.tables),
            "cached": self.pool.cached,
            "saturated": self.saturated,
        }
        held = {
            r.number: [[block.number for block in table] for table in r.tables]
            for r in self.running
        }
        self.seen["copy-on-write"] += row["copied_slots"] > 0
        self.seen["copy-on-write in a step that preempts"] += (
            row["copied_slots"] > 0 and self.preempted > 0
        )
        for request in self.scheduled:
            if request.computed == request.known:
                self.sample(request)
        self.at += 1
        here = sum(1 for request in self.to_come if request.arrival_step <= self.at)
        row |= {"running": len(self.running), "waiting": len(self.waiting) + here}
        return row, held

    def schedule_running(self):
        """Whether one of the running was left out for lack of budget."""
        at = 0
        while at < len(self.running) and self.left:
            request = self.running[at]
            if not request.forked and request.computed == request.prompt:
                if self.left < request.sequences:
                    self.seen["a fork left out"] += 1
                    return True
                self.pool.fork(request)
                self.seen["fork"] += 1
                self.seen["fork after a preemption"] += request.sampled > 1
            width = len(request.tables)
            due = request.target - request.computed
            tokens = min(due, self.left // width)
            # All before it are forked too and take as much as when it was, or less.
            assert tokens, "a forked group was left out"
            while not self.pool.fits(request, request.computed + tokens):
                victim = self.running.pop()
                assert victim not in self.scheduled
                self.preempt(victim)
                self.seen["preempted itself"] += victim is request
                if victim is request:
                    return False
            self.pool.extend(request, request.computed + tokens)
            self.seen["chunk of a running prompt"] += tokens > 1 and width == 1
            self.seen["chunk of a group's output"] += width > 1 and tokens < due
            self.scheduled.append(request)
            self.left -= tokens * width
            at += 1
        left_out = at < len(self.running)
        self.seen["a prompt left out"] += left_out
        # Single sequences are admitted each with a token of the budget left, and only the last
        # of them has several to go.
        groups = any(request.sequences > 1 for request in self.running)
        assert groups or not left_out, "running, and left out for lack of budget"
        return left_out

    def preempt(self, victim):
        self.seen["preempted in its prompt"] += victim.computed < victim.prompt
        self.seen["preempted with output"] += victim.sampled > 0
        self.seen["preempted while forked"] += len(victim.tables) > 1
        victim.lost = victim.total_computed
        self.pool.release(victim)
        victim.computed = 0
        self.waiting.insert(0, victim)
        self.preempted += 1
        self.saturated = True

    def schedule_waiting(self):
        while self.waiting and self.left:
            request = self.waiting[0]
            if sum(r.sequences for r in self.running) + request.sequences > self.max_seqs:
                return
            found = self.pool.find(request)
            hit = len(found) * self.pool.size
            tokens = min(request.target - hit, self.left)
            if not self.pool.admits(request, request.known, found):
                if not self.running:
                    raise CannotFit
                self.seen["only a piece would fit"] += self.pool.admits(
                    request, hit + tokens, found
                )
                self.saturated = True
                return
            self.seen["hit on a referenced block"] += any(block.holders for block in found)
            self.seen["hit on a cached block"] += any(not block.holders for block in found)
            self.seen["hit on its own output"] += hit > request.prompt
            self.seen["hit after a preemption"] += hit > 0 and request.lost > 0
            self.pool.hold(request, found)
            self.pool.extend(request, hit + tokens)
            self.wasted += max(0, request.lost - hit)
            request.lost = 0
            self.hit += hit
            self.left -= tokens
            self.running.append(self.waiting.pop(0))
            self.scheduled.append(request)

    def sample(self, request):
        if request.sequences == 1:
            request.tokens.append(("output", request.number, request.sampled))
        request.sampled += 1
        if request.sampled == request.output:
            self.running.remove(request)
            self.pool.release(request)
