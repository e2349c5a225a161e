"""vLLM's scheduler and hybrid KV cache manager in plain Python: lists of blocks, one at a time.

Written from the rules of vLLM 0.33.0 and from nothing of ours, to be compared with.  No block is
looked for in a clever way, and nothing is counted that could be seen.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """What the layers of one table keep, and the tokens of a block of theirs."""

    name: str  # full, sliding, chunked, state
    tokens: int
    window: int = 0

    def skipped(self, computed):
        """Tokens that the next one does not read."""
        if self.name == "sliding":
            return max(0, computed - self.window + 1)
        if self.name == "chunked":
            return computed // self.window * self.window
        return 0

    def blocks(self, tokens):
        if self.name == "state":
            return 1
        return -(-tokens // self.tokens)

    def most(self, budget, max_len):
        """Blocks that one request is counted at most when it asks to be let in."""
        if self.name == "sliding":
            return -(-min(self.window - 1 + budget, max_len) // self.tokens) + 1
        if self.name == "chunked":
            return -(-min(self.window + budget, max_len) // self.tokens)
        return 10**9


@dataclass
class Request:
    index: int
    prompt: list
    stream: list  # prompt and all that will be generated
    output: int
    generated: int = 0
    computed: int = 0
    tables: list = field(default_factory=list)  # of each kind: block numbers, None behind
    keyed: list = field(default_factory=list)  # of each kind: blocks that have been keyed
    parts: int = 0  # where it parts from others that some kinds remember further than all do

    @property
    def known(self):
        return len(self.prompt) + self.generated


class Manager:
    def __init__(self, kinds, blocks, budget, max_len, caching, retention=None):
        self.kinds, self.budget, self.max_len, self.caching = kinds, budget, max_len, caching
        self.retention = retention
        self.free = list(range(blocks))
        self.holders = [0] * blocks
        self.key = [None] * blocks
        self.cache = {}  # (kind's number, tokens up to the block's end) -> blocks, oldest first
        self.align = 1
        for kind in kinds:
            while self.align % kind.tokens:
                self.align += 1

    # -- blocks ------------------------------------------------------------------------------
    def take(self):
        block = self.free.pop(0)
        if self.key[block] is not None:
            self.cache[self.key[block]].remove(block)
            self.key[block] = None
        self.holders[block] = 1
        return block

    def give(self, blocks):
        first, last = [], []
        for block in blocks:
            self.holders[block] -= 1
            if self.holders[block] == 0:
                (first if self.key[block] is None else last).append(block)
        self.free = first + self.free + last

    def cached(self, number, request, column):
        key = (number, tuple(request.stream[: (column + 1) * self.kinds[number].tokens]))
        blocks = self.cache.get(key)
        return blocks[0] if blocks else None

    # -- prefix ------------------------------------------------------------------------------
    def find(self, request):
        """Return the longest length that every kind still holds: tried from the longest down."""
        longest = (request.known - 1) // self.align * self.align if self.caching else 0
        request.parts = 0
        full = [number for number, kind in enumerate(self.kinds) if kind.name == "full"]
        for length in range(longest, 0, -self.align):
            tables = [self.holds(number, request, length) for number in range(len(self.kinds))]
            if all(table is not None for table in tables):
                return length, tables
            if not request.parts and all(tables[number] is not None for number in full):
                request.parts = length
        return 0, [[] for _ in self.kinds]

    def holds(self, number, request, length):
        """Return the blocks that serve a token at `length`, or None where one is missing."""
        kind = self.kinds[number]
        if kind.name == "sliding" and kind.window == 1:
            return None  # none of its blocks is ever keyed, and it does not do without
        columns, first = length // kind.tokens, kind.skipped(length) // kind.tokens
        blocks = [None] * first
        for column in range(first, columns):
            block = self.cached(number, request, column)
            if block is None:
                return None
            blocks.append(block)
        return blocks

    # -- slots -------------------------------------------------------------------------------
    def allocate(self, request, tokens, hit=0, found=None):
        """Give a request slots for its next tokens; False if they do not fit."""
        new = found is not None
        if new and self.needed(request, request.known, hit, found, True) > len(self.free):
            return False
        computed = request.computed + hit
        for table, kind in [] if new else zip(request.tables, self.kinds, strict=True):
            behind = min(kind.skipped(computed) // kind.tokens, len(table))
            gone = [column for column in range(behind - 1, -1, -1) if table[column] is not None]
            self.give([table[column] for column in gone])
            for column in gone:
                table[column] = None
        if self.needed(request, computed + tokens, hit, found, False) > len(self.free):
            return False
        if new:
            request.tables = [list(table) for table in found]
            request.keyed = [len(table) for table in found]
            for table in request.tables:
                for block in table:
                    if block is not None:
                        if self.holders[block] == 0:
                            self.free.remove(block)
                        self.holders[block] += 1
        for table, kind in zip(request.tables, self.kinds, strict=True):
            while len(table) < kind.blocks(computed + tokens):
                table.append(self.take())
        if self.caching:
            self.name_full(request, min(computed + tokens, request.known))
        return True

    def needed(self, request, length, hit, found, capped):
        total = 0
        for number, kind in enumerate(self.kinds):
            blocks = kind.blocks(length)
            if capped:
                blocks = min(blocks, kind.most(self.budget, self.max_len))
            if found is None:
                total += max(blocks - len(request.tables[number]), 0)
                continue
            total += max(blocks - max(len(found[number]), kind.skipped(hit) // kind.tokens), 0)
            total += sum(b is not None and self.holders[b] == 0 for b in found[number])
        return total

    def name_full(self, request, length):
        length = length // self.align * self.align
        for number, (table, kind) in enumerate(zip(request.tables, self.kinds, strict=True)):
            for column in range(request.keyed[number], length // kind.tokens):
                request.keyed[number] = column + 1
                block = table[column]
                if block is None or not self.reachable(kind, column, request):
                    continue
                key = (number, tuple(request.stream[: (column + 1) * kind.tokens]))
                self.key[block] = key
                self.cache.setdefault(key, []).append(block)

    def reachable(self, kind, column, request):
        """Whether a hit that ends where blocks of all kinds do could read this block."""
        if kind.name != "sliding":
            return True
        needs = -(-(kind.window - 1) // kind.tokens)
        ends = range(self.align, self.max_len + self.align, self.align)
        if self.retention is not None:
            known = (len(request.prompt) - 1, request.parts)
            ends = {at // self.align * self.align for at in known}
            if self.retention:
                ends |= set(range(self.retention, self.max_len + self.retention, self.retention))
                if needs * kind.tokens >= self.retention:
                    return True
        return any(end // kind.tokens - needs <= column < end // kind.tokens for end in ends)

    def drop(self, request):
        for table in request.tables:
            self.give([block for block in reversed(table) if block is not None])
        request.tables, request.keyed = [], []


def serve(kinds, blocks, budget, max_seqs, max_len, requests, caching, retention=None):
    """Serve requests [(prompt, later tokens)], all there at once; return a row for each step."""
    manager = Manager(kinds, blocks, budget, max_len, caching, retention)
    waiting = deque(
        Request(i, list(prompt), [*prompt, *later], len(later))
        for i, (prompt, later) in enumerate(requests)
    )
    running, rows = [], []
    while waiting or running:
        left, scheduled, preempted, hits = budget, [], 0, 0
        at = 0
        while at < len(running) and left:
            request = running[at]
            tokens = min(request.known - request.computed, left)
            while not manager.allocate(request, tokens):
                victim = running.pop()
                manager.drop(victim)
                victim.computed = 0
                waiting.appendleft(victim)
                preempted += 1
                if victim is request:
                    break
            else:
                scheduled.append((request, tokens))
                left -= tokens
                at += 1
        while not preempted and waiting and left and len(running) < max_seqs:
            request = waiting[0]
            hit, found = manager.find(request)
            tokens = min(request.known - hit, left)
            if not manager.allocate(request, tokens, hit, found):
                break
            waiting.popleft()
            running.append(request)
            request.computed = hit
            hits += hit
            scheduled.append((request, tokens))
            left -= tokens
        in_use = blocks - len(manager.free)
        for request, tokens in scheduled:
            request.computed += tokens
            if request.computed == request.known:
                request.generated += 1
                if request.generated == request.output:
                    manager.drop(request)
                    running.remove(request)
        if scheduled:
            rows.append(
                {
                    "running": len(running),
                    "waiting": len(waiting),
                    "tokens": budget - left,
                    "blocks_in_use": in_use,
                    "hit_tokens": hits,
                    "preemptions": preempted,
                }
            )
    return rows
