"""A slow, literal model of the `continuous` and `orca` policies, to hold the engine against.

One object a sequence, one object a block, a list of sampled tokens a sequence; nothing is counted
that can be looked up.  A step takes one second.  It shares no code with the engine but the drawing
of beam lineages, which are input to both.
"""

from dataclasses import dataclass, field
from itertools import pairwise


class CannotFit(Exception):
    pass


@dataclass(eq=False)
class Block:
    holders: int = 1


@dataclass(eq=False)
class Sequence:
    length: int = 0  # slots that hold KV
    fed: list = field(default_factory=list)  # sampled tokens whose KV those slots hold
    last: object = None  # the token sampled last, yet to be fed
    blocks: list = field(default_factory=list)
    extent: range | None = None


@dataclass(eq=False)
class Group:
    index: int
    prompt: int
    output: int
    size: int
    lineage: list | None = None  # [step][sequence] -> the sequence it continues
    sampled: int = 0
    sequences: list = field(default_factory=list)

    @property
    def final(self):
        return self.prompt + self.output - 1

    def histories(self):
        """Everything sampled so far, for each sequence, as it will have to be fed again."""
        return [[*s.fed, s.last] if self.sampled else [] for s in self.sequences]

    def common(self):
        """How many leading sampled tokens are the same in every sequence."""
        n = 0
        for tokens in zip(*self.histories(), strict=True):
            if len(set(tokens)) > 1:
                break
            n += 1
        return n

    def sample(self):
        for i, sequence in enumerate(self.sequences):
            sequence.last = (self.sampled, i)
        self.sampled += 1


class PagedMemory:
    def __init__(self, blocks, block_tokens):
        self.blocks, self.t = blocks, block_tokens
        self.in_use = 0
        self.copied = 0

    def _take(self):
        assert self.in_use < self.blocks
        self.in_use += 1
        return Block()

    def _drop(self, block):
        block.holders -= 1
        if not block.holders:
            self.in_use -= 1

    def _write(self, sequence):
        """Write one slot: a new block if the last is full, a copy if others hold it."""
        inside = sequence.length % self.t
        if not inside:
            sequence.blocks.append(self._take())
        elif sequence.blocks[-1].holders > 1:
            old = sequence.blocks.pop()
            sequence.blocks.append(self._take())
            self._drop(old)
            self.copied += inside
        sequence.length += 1

    def admit(self, group):
        common = group.prompt + group.common()
        total = group.prompt + group.sampled
        wide = -(-total // self.t)
        shared = common // self.t if total > common else wide
        need = shared + group.size * (wide - shared)
        if need > self.blocks:
            raise CannotFit(group.index)
        if need > self.blocks - self.in_use:
            return False
        histories = group.histories()
        group.sequences = [Sequence(fed=h) for h in histories or [[] for _ in range(group.size)]]
        first, *others = group.sequences
        for _ in range(common):
            self._write(first)
        for sequence in others:
            sequence.length, sequence.blocks = common, list(first.blocks)
            for block in first.blocks:
                block.holders += 1
        for sequence in [*others, first]:
            while sequence.length < total:
                self._write(sequence)
        return True

    def reassign(self, group, parents):
        tables = [list(group.sequences[p].blocks) for p in parents]
        for block in (b for table in tables for b in table):
            block.holders += 1
        for block in (b for s in group.sequences for b in s.blocks):
            self._drop(block)
        for sequence, table in zip(group.sequences, tables, strict=True):
            sequence.blocks = table

    def grow(self, sequences):
        need, left = 0, {}
        for sequence in sequences:
            if sequence.length % self.t == 0:
                need += 1
                continue
            block = sequence.blocks[-1]
            left.setdefault(block, block.holders)
            if left[block] > 1:
                need += 1
                left[block] -= 1
        if need > self.blocks - self.in_use:
            return False
        for sequence in sequences:
            self._write(sequence)
        return True

    def release(self, group):
        for block in (b for s in group.sequences for b in s.blocks):
            self._drop(block)

    def account(self, groups):
        written, later = {}, {}
        for group in groups:
            for sequence in group.sequences:
                for i, block in enumerate(sequence.blocks):
                    here = min(self.t, sequence.length - i * self.t)
                    written[block] = max(written.get(block, 0), here)
                    soon = min(self.t, group.final - i * self.t) - here
                    later[block] = max(later.get(block, 0), soon)
        assert len(written) == self.in_use
        return {
            "blocks": self.in_use,
            "token": sum(written.values()),
            "reserved": sum(later.values()),
            "held": self.in_use * self.t,
        }


class ContiguousMemory:
    """Reservations of a whole life, greedy only; `holes` lists what is free, merged."""

    def __init__(self, capacity, slots_of, buddy):
        self.capacity, self.slots_of, self.buddy = capacity, slots_of, buddy
        self.taken = []  # (start, size, slots asked for)
        self.copied = 0

    def _clear(self, start, size):
        return all(s + n <= start or s >= start + size for s, n, _ in self.taken)

    def _holes(self):
        if not self.buddy:
            edges = sorted([(0, 0), *((s, n) for s, n, _ in self.taken), (self.capacity, 0)])
            ends = [(a + n, b) for (a, n), (b, _) in pairwise(edges)]
            return [(a, b - a) for a, b in ends if b > a]
        holes, start = [], 0
        for bit in reversed(range(self.capacity.bit_length())):
            if self.capacity >> bit & 1:
                holes += self._split(start, 1 << bit)
                start += 1 << bit
        return holes

    def _split(self, start, size):
        if self._clear(start, size):
            return [(start, size)]
        if any((s, n) == (start, size) for s, n, _ in self.taken) or size == 1:
            return []
        return self._split(start, size // 2) + self._split(start + size // 2, size // 2)

    def admit(self, group):
        slots = size = self.slots_of(group)
        if self.buddy:
            size = 1
            while size < slots:
                size *= 2
        fitting = [(n if self.buddy else 0, s) for s, n in self._holes() if n >= size]
        if not fitting:
            return False
        start = min(fitting)[1]
        self.taken.append((start, size, slots))
        group.sequences = [Sequence(length=group.prompt, extent=self.taken[-1])]
        return True

    def reassign(self, group, parents):
        raise AssertionError("greedy only")

    def grow(self, sequences):
        for sequence in sequences:
            sequence.length += 1
            assert sequence.length <= sequence.extent[2]
        return True

    def release(self, group):
        for sequence in group.sequences:
            self.taken.remove(sequence.extent)

    def account(self, groups):
        token = sum(group.sequences[0].length for group in groups)
        return {
            "blocks": len(self.taken),
            "token": token,
            "reserved": sum(g.final - g.sequences[0].length for g in groups),
            "held": sum(asked for _, _, asked in self.taken),
            "rounded": sum(size - asked for _, size, asked in self.taken),
        }


class Reference:
    """First come, first served; prompts first; the latest group is preempted whole."""

    def __init__(self, memory, groups, arrivals, max_seqs, budget, concurrency=None):
        self.memory, self.max_seqs, self.budget = memory, max_seqs, budget
        self.expected = list(zip(arrivals, groups, strict=True))
        self.concurrency = concurrency
        self.queue, self.running = [], []
        self.now, self.saturated = 0.0, False
        self.recomputed_once = 0  # tokens that one sequence of a group recomputed for all
        self.finish = {}

    def run(self):
        released = len(self.expected)
        if self.concurrency is not None:
            released = min(self.concurrency, released)
            self.expected = [(0.0, group) for _, group in self.expected]
        total, rows = len(self.expected), []
        while len(self.finish) < total:
            while self.expected and released and self.expected[0][0] <= self.now:
                self.queue.append(self.expected.pop(0)[1])
                released -= 1
            step = self._step()
            if step is None:
                self.now = self.expected[0][0]
                continue
            self.now += 1.0
            for group in step.pop("sampling"):
                group.sample()
            done = [group for group in self.running if group.sampled == group.output]
            for group in done:
                self.running.remove(group)
                self.memory.release(group)
                self.finish[group.index] = self.now
            step["running"] = len(self.running)
            here = 0
            if self.concurrency is None:
                here = sum(at <= self.now for at, _ in self.expected)
            else:
                released += len(done)
            step["waiting"] = len(self.queue) + here
            rows.append(step)
        return rows

    def _step(self):
        admitted, tokens = self._admit()
        preemptions = 0
        if not admitted and self.running:
            preemptions = self._decode()
            if self.running:
                admitted, tokens = list(self.running), sum(g.size for g in self.running)
            else:
                admitted, tokens = self._admit()
                assert admitted
        return self._row(admitted, tokens, preemptions) if admitted else None

    def _row(self, sampling, tokens, preemptions):
        copied, self.memory.copied = self.memory.copied, 0
        return {
            "sampling": sampling,
            "batched": tokens,
            "preemptions": preemptions,
            "copied": copied,
            "saturated": self.saturated,
            **self.memory.account(self.running),
        }

    def _admit(self):
        admitted, tokens, self.saturated = [], 0, False
        while self.queue:
            group = self.queue[0]
            if sum(g.size for g in self.running) + group.size > self.max_seqs:
                break
            private = group.sampled - group.common()
            more = group.prompt + group.common() + group.size * private
            if admitted and tokens + more > self.budget:
                break
            common = group.common() if group.size > 1 else 0
            if not self.memory.admit(group):
                self.saturated = True
                break
            self.recomputed_once += common
            self.running.append(self.queue.pop(0))
            admitted.append(group)
            tokens += more
        return admitted, tokens

    def _decode(self):
        """Give every sequence its next slot, preempting while that fails; return how often."""
        for group in self.running:
            if group.lineage is not None:
                parents = group.lineage[group.sampled - 1]
                self.memory.reassign(group, parents)
                histories = [list(group.sequences[p].fed) for p in parents]
                for sequence, fed in zip(group.sequences, histories, strict=True):
                    sequence.fed = fed
        preemptions = 0
        while self.running:
            sequences = [s for group in self.running for s in group.sequences]
            if self.memory.grow(sequences):
                for sequence in sequences:
                    sequence.fed.append(sequence.last)
                break
            group = self.running.pop()
            self.memory.release(group)
            self.queue.insert(0, group)
            self.saturated = True
            preemptions += 1
        return preemptions


class OrcaReference(Reference):
    """Whoever runs gets its slot first; then whole prompts join the same iteration."""

    mixed = 0  # iterations of decodes and prompts

    def _step(self):
        self.saturated = False
        preemptions = self._decode()
        decodes = sum(group.size for group in self.running)
        tokens = decodes
        if not (preemptions and self.running):
            tokens += self._admit()[1]
            self.mixed += 0 < decodes < tokens
        return self._row(list(self.running), tokens, preemptions) if self.running else None
