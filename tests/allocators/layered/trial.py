"""An obvious, slow model beside a layered policy: what every layer of every sequence must hold.

A sequence has a value for each position in each layer group that grows, `encoder_tokens` values in
a cross one, and the latest value in a state.  Before a step computes, what its queries read has to
read back from the bytes of the pool; what they write then overwrites whatever was there.
"""

import copy
from collections import Counter

import numpy as np

from allocators.base import Demand, NeverFits, Prompt, Unsupported
from harness.conformance.frames import Frames
from tests.allocators.layered.byte_memory import ByteMemory

#: of `Usage`, what sums to the pool
CATEGORIES = ("token", "reserved", "internal", "round_up", "cached", "free", "expired")


class NoFrames:
    """Of policies that map nothing."""

    def execute(self, grant):
        assert not len(grant.maps), "a policy without driver pages maps"


class Sequence:
    """`values[layer group]` by position (or of the encoder, or one state), `final` its end."""

    def __init__(self, values, final, group):
        self.values, self.final, self.group = values, final, group
        self.ids = ()  # the identities of its tokens, as far as they are known
        self.query = 0  # the first position that the present step computes
        self.written = 0  # positions whose values are in memory

    def fork(self):
        twin = Sequence([list(of) for of in self.values], self.final, self.group)
        twin.query = twin.written = self.written
        return twin


class Trial:
    """One policy and a twin of it that is told only what was granted, if it has no index."""

    def __init__(self, make):
        self.allocator, self.twin = make(), make()
        self.geometry = self.allocator.geometry
        self.kinds = self.geometry.layer_groups
        self.memory = ByteMemory(self.allocator)
        self.frames = Frames(self.allocator) if self.allocator.page_bytes else NoFrames()
        self.capacity = sum(self.allocator.balance())
        self.live, self.tickets = {}, {}
        self.counts = Counter()
        self.groups = self.value = 0
        self.grants = []
        self.prefixes = {}
        self.admitted = []

    @property
    def rows(self):
        return np.array(list(self.live), dtype=np.int64)

    @property
    def idle(self):
        return [row for row in range(self.geometry.max_seqs) if row not in self.live]

    def length(self, row):
        return int(self.allocator.length[row])

    # -- asking ------------------------------------------------------------------------------
    def ask(self, method, *args):
        before = self.seen(self.allocator)
        try:
            grant = getattr(self.allocator, method)(*args)
        except (NeverFits, Unsupported):
            assert self.seen(self.allocator) == before, f"{method} fails and leaves a trace"
            raise
        if grant is None:
            self.counts[f"{method} refused"] += 1
            assert self.seen(self.allocator) == before, f"a refused {method} leaves a trace"
            # An index remembers who was refused: its pages are given back first, as by vLLM.
            twin = self.twin if self.allocator.has_prefix_index else copy.deepcopy(self.twin)
            assert getattr(twin, method)(*args) is None
            return None
        twin = getattr(self.twin, method)(*args)
        self.frames.execute(grant)
        for name in ("copies", "maps", "unmaps", "swaps_out", "swaps_in", "converted"):
            ours, theirs = getattr(grant, name), getattr(twin, name)
            assert ours.tolist() == theirs.tolist(), f"a twin answers {method} otherwise"
            self.counts[f"{name} of {method}"] += len(ours)
            self.counts[name] += len(ours)
        return grant

    def seen(self, allocator):
        rows = self.rows
        slots = [
            allocator.layer_slots(int(row), g).tolist()
            for row in rows
            for g in range(len(self.kinds))
        ]
        usage = allocator.usage(rows, self.finals(rows))
        return slots, allocator.balance(), [int(getattr(usage, name)[0]) for name in CATEGORIES]

    def finals(self, rows):
        return np.array([self.live[row].final for row in rows.tolist()], dtype=np.int64)

    # -- what happens ------------------------------------------------------------------------
    def admit(self, rows, tokens, output, private=0, whole=0, sequences=1, ids=None):
        """Admit a group; `ids` are the identities of its prompt, and of what a single one adds."""
        known = None if ids is None else np.array(ids, dtype=np.int64)
        prompt = Prompt(tokens, token_ids=known, whole_tokens=whole)
        demand = Demand(max(whole, tokens), output, private, sequences)
        try:
            grant = self.ask("admit", rows, prompt, demand)
        except NeverFits:
            self.counts["never fits"] += 1
            return False
        if grant is None:
            return False
        self.groups += 1
        # The last token of the output is never fed.
        final = max(max(whole, tokens) + output - 1, tokens + private)
        parent = Sequence([[] for _ in self.kinds], final, self.groups)
        for i, row in enumerate(rows.tolist()):
            self.live[row] = parent if not i else None
        if ids is not None:
            parent.ids = tuple(ids if len(rows) == 1 else ids[:tokens])
            self._found(int(rows[0]), parent, grant.cached_tokens)
        self.grants.append((grant, False))
        self.admitted.append((rows, tokens, private, grant))
        self.step()
        return True

    def grow(self, rows, n):
        grant = self.ask("grow", rows, n)
        if grant is None:
            return False
        for row in rows.tolist():
            sequence = self.live[row]
            sequence.query = sequence.written
        return self._granted(grant)

    def fork(self, parent, children, private):
        try:
            grant = self.ask("fork", parent, children, Demand(self.length(parent), 1, private))
        except NeverFits:
            return False
        if grant is None:
            return False
        self.live[parent].ids = ()
        for row in children.tolist():
            self.live[row] = self.live[parent].fork()
        return self._granted(grant)

    def reassign(self, rows, parents):
        grant = self.ask("reassign", rows, parents)
        if grant is None:
            return False
        was = {row: self.live[row] for row in parents.tolist()}
        for row, parent in zip(rows.tolist(), parents.tolist(), strict=True):
            if row != parent:
                final = self.live[row].final
                self.live[row] = was[parent].fork()
                self.live[row].final = final
                self.live[row].query = was[parent].query
        return self._granted(grant)

    def truncate(self, row, n):
        try:
            grant = self.ask("truncate", row, n)
        except Unsupported:
            self.counts["truncate unsupported"] += 1
            return False
        sequence = self.live[row]
        for kind, values in zip(self.kinds, sequence.values, strict=True):
            if kind.grows:
                del values[-n:]
        sequence.written -= n
        sequence.ids = ()
        sequence.query = min(sequence.query, sequence.written)
        self.counts["truncate"] += 1
        return self._granted(grant)

    def release(self, rows, method="release"):
        grant = self.ask(method, rows)
        for row in rows.tolist():
            del self.live[row]
        self._granted(grant)

    def suspend(self, rows, ticket):
        grant = self.ask("suspend", rows, ticket)
        if grant is None:
            return False
        self.tickets[ticket] = [self.live.pop(row) for row in rows.tolist()]
        return self._granted(grant)

    def resume(self, rows, ticket):
        grant = self.ask("resume", rows, ticket)
        if grant is None:
            return False
        for row, sequence in zip(rows.tolist(), self.tickets.pop(ticket), strict=True):
            self.live[row] = sequence
            sequence.query, sequence.ids = sequence.written, ()
        return self._granted(grant)

    # -- a step ------------------------------------------------------------------------------
    def _granted(self, grant):
        """End the step of a call whose copies come before it computes."""
        self.grants.append((grant, True))
        self.step()
        return True

    def step(self):
        """End the planning: execute what was granted, let all that grew compute, check all."""
        before, beside = self.allocator.begin_step()
        twins = self.twin.begin_step()
        for ours, theirs in zip((before, beside), twins, strict=True):
            self.frames.execute(ours)
            assert ours.converted.tolist() == theirs.converted.tolist()
            self.counts["converted"] += len(ours.converted)
            self.counts["made whole"] += int((ours.converted[:, 1] < ours.converted[:, 2]).sum())
            assert ours.maps.tolist() == theirs.maps.tolist()
            assert ours.unmaps.tolist() == theirs.unmaps.tolist()
            self.counts["maps"] += len(ours.maps)
            self.counts["unmaps"] += len(ours.unmaps)
        for grant, at_once in self.grants:
            self.memory.swap_and_map(grant)
            if at_once:
                self.memory.copy(grant)
        self.memory.swap_and_map(before)
        for grant in (before, beside):
            assert not len(grant.copies), "a step only maps and unmaps"
        self.compute()
        self.memory.swap_and_map(beside)
        self.grants = []
        self.verify()

    def compute(self):
        for rows, tokens, private, grant in self.admitted:
            parent = self.live[int(rows[0])]
            self._write(int(rows[0]), parent, tokens)
            for row in rows[1:].tolist():
                self.live[row] = parent.fork()
            self.memory.copy(grant)
            for row in rows.tolist() if private else []:
                self._write(row, self.live[row], tokens + private)
        self.admitted = []
        for row, sequence in self.live.items():
            if self.length(row) > sequence.written:
                self._reads_back(row, sequence, sequence.query)
                self._write(row, sequence, self.length(row))
            else:
                # Nothing is computed for it: what its last step read may be gone by now, or not.
                query = int(self.allocator.first_new[row])
                assert sequence.query <= query <= sequence.written
                sequence.query = query

    def _fresh(self, n):
        self.value += n
        return list(range(self.value - n, self.value))

    def _values(self, g, sequence, first, stop):
        """Return the values of positions; equal prefixes of known tokens have equal ones."""
        values = self._fresh(stop - first)
        for position in range(first, min(stop, len(sequence.ids))):
            prefix = (g, sequence.ids[: position + 1])
            values[position - first] = self.prefixes.setdefault(prefix, values[position - first])
        return values

    def _found(self, row, sequence, tokens):
        """Require that what a hit says is in memory is there: all that the next token reads."""
        assert tokens < len(sequence.ids)
        self.counts["hit tokens"] += tokens
        if not tokens:
            return
        for g in range(len(self.kinds)):
            sequence.values[g] = self._values(g, sequence, 0, tokens)
        sequence.query = sequence.written = tokens
        self._reads_back(row, sequence, tokens)

    def _write(self, row, sequence, length):
        for g, kind in enumerate(self.kinds):
            slots, values = self.allocator.layer_slots(row, g), sequence.values[g]
            if kind.kind == "state":
                sequence.values[g] = values = self._fresh(1)
                self.memory.write(g, slots, values)
            elif kind.kind == "cross":
                if not values:
                    sequence.values[g] = values = self._fresh(kind.encoder_tokens)
                    self.memory.write(g, slots, values)
            else:
                past = len(values)
                values += self._values(g, sequence, past, length)
                self._are_mapped(row, g, slots, past)
                slots = slots[past:length]
                assert (slots >= 0).all(), "what is written has no slot"
                self.memory.write(g, slots, values[past:])
        sequence.written = length

    def _reads_back(self, row, sequence, query):
        for g, kind in enumerate(self.kinds):
            slots, values = self.allocator.layer_slots(row, g), sequence.values[g]
            first = int(kind.first_read(np.array([query]))[0])
            self._are_mapped(row, g, slots[: len(values)], first)
            slots = slots[first : len(values)]
            assert len(slots) == len(values[first:])
            assert (slots >= 0).all(), f"a hole in {kind.kind} of row {row}, from {first} on"
            held = self.memory.read(g, slots).tolist()
            assert held == values[first:], f"{kind.kind} of row {row} from {first} on is lost"

    def _are_mapped(self, row, g, slots, first):
        """The page table leads from each position to the slot that the policy names."""
        if not self.allocator.pages_per_group:
            return
        t = self.allocator.tables.shapes.tables[g].page_tokens
        for position in range(first, len(slots)):
            page = self.memory.mapped.get((g, row, position // t))
            assert page is not None, f"position {position} of row {row} is not mapped"
            assert page * t + position % t == slots[position], "another page-group is mapped"

    # -- checks ------------------------------------------------------------------------------
    def verify(self):
        self.allocator.check()
        rows = self.rows
        for row, sequence in self.live.items():
            assert self.length(row) == sequence.written
            self._reads_back(row, sequence, sequence.query)
        assert set(np.flatnonzero(self.allocator.active).tolist()) == set(self.live)
        assert sum(self.allocator.balance()) == self.capacity
        for part in (rows, rows[::2]):
            self._account(part)
        if not len(rows):
            usage = self.allocator.usage(rows, rows)
            assert not any(int(getattr(usage, x)[0]) for x in ("token", "reserved", "expired"))
            assert self.allocator.balance()[0] == 0, "something is held by nobody"

    def _account(self, rows):
        """Of the live bytes each once; all sum to the pool."""
        usage = self.allocator.usage(rows, self.finals(rows))
        total = {name: int(getattr(usage, name)[0]) for name in CATEGORIES}
        assert sum(total.values()) == self.geometry.capacity_bytes, total
        assert min(total.values()) >= 0, total
        live = 0
        for g, kind in enumerate(self.kinds):
            held = set()
            for row in rows.tolist():
                query = min(self.live[row].query, self.length(row))
                first = int(kind.first_read(np.array([query]))[0])
                held.update(self.allocator.layer_slots(row, g)[first:].tolist())
            live += len(held) * kind.slot_bytes
        assert total["token"] == live, f"{total}, but {live} bytes are live"
        self.counts["expired"] += total["expired"] > 0

    # -- promises ----------------------------------------------------------------------------
    def check_growth(self, rows, most):
        """Headroom is exact; quiet steps are quiet, and many at once end as one by one."""
        longest = max(self.length(row) for row in rows.tolist())
        room = self.allocator.headroom(rows)
        assert room <= self.geometry.max_len - longest
        if room:
            assert copy.deepcopy(self.twin).grow(rows, room) is not None, f"{room} is refused"
        if room < self.geometry.max_len - longest:
            assert copy.deepcopy(self.twin).grow(rows, room + 1) is None, f"{room} was not all"
        quiet = self.allocator.quiet_steps(rows, min(most, self.geometry.max_len - longest))
        if not quiet:
            return
        self.counts["quiet steps"] += 1
        at_once, one_by_one = copy.deepcopy(self.twin), copy.deepcopy(self.twin)
        assert at_once.grow(rows, quiet).is_empty
        every = at_once.usage(rows, self.finals(rows), quiet)
        for i in range(quiet):
            assert one_by_one.grow(rows, 1).is_empty
            assert all(grant.is_empty for grant in one_by_one.begin_step())
            usage = one_by_one.usage(rows, self.finals(rows))
            for name in CATEGORIES:
                got, due = int(getattr(every, name)[i]), int(getattr(usage, name)[0])
                assert got == due, f"{name} in step {i} of {quiet}: {got}, not {due}"
        at_once.begin_step()
        assert at_once.balance() == one_by_one.balance()

    def end(self):
        while len(self.rows):
            self.release(self.rows[:1])
        assert self.allocator.balance()[0] == 0
        self.counts["evictions"] += self.allocator.evictions
