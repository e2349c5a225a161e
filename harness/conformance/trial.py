"""Drives one allocator, executes its grants on a model of memory and checks after each call."""

from __future__ import annotations

import numpy as np

from allocators.base import Demand, Grant, IntArray, NeverFits, Prompt, Unsupported
from harness.conformance import checks
from harness.conformance.audit import Audit, Make, Suspended, text
from harness.conformance.memory import SlotMemory, Violation, require

__all__ = ["Make", "Trial", "Violation", "fits_when_empty"]


def fits_when_empty(make: Make, size: int, prompt: Prompt, demand: Demand) -> bool:
    """Say whether a fresh allocator admits this group; it may not answer None.

    Nothing will become free.
    """
    try:
        grant = make().admit(np.arange(size), prompt, demand)
    except NeverFits:
        return False
    require(grant is not None, "never fits", f"an empty pool refuses {text(prompt)} x {size}")
    return True


class Trial(Audit):
    """One method for each call of the protocol; each says whether the call was granted.

    `swaps` turns false when the policy says that it cannot swap.  `known[row]` are the values of
    a lone sequence whose prompt's tokens go on beyond it, until it is forked or rolled back.
    """

    def __init__(self, make: Make) -> None:
        super().__init__(make, SlotMemory)
        self.swaps = True
        self.known: dict[int, IntArray] = {}
        self._groups = 0

    # -- operations --------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> bool:
        """Admit a group; the prompt is written by `rows[0]`, then copied, then the rest follows."""
        try:
            grant = self.ask("admit", rows, prompt, demand)
        except NeverFits:
            possible = fits_when_empty(self.make, len(rows), prompt, demand)
            require(not possible, "never fits", f"{text(prompt)} x {len(rows)} fits when empty")
            self.counts["never_fits"] += 1
            return False
        if grant is None:
            fits_empty = len(self.tokens) and fits_when_empty(self.make, len(rows), prompt, demand)
            require(bool(fits_empty), "never fits", f"{text(prompt)} x {len(rows)} never will")
            return False
        n, ids = prompt.tokens, prompt.token_ids
        known = self.memory.fresh(n) if ids is None else self.memory.prefix_values(ids)
        values = known[:n]
        self.memory.map(grant)
        hit = self._honest_hit(grant, int(rows[0]), values)
        self.memory.write(self.allocator.addresses(int(rows[0]))[hit:n], values[hit:])
        self.memory.copy(grant)
        self._groups += 1
        if len(rows) == 1:
            self.known[int(rows[0])] = known
        for row in rows.tolist():
            self.tokens[row] = values
            self.finals[row] = demand.prompt_tokens + demand.output_tokens - 1
            self.group_of[row] = self._groups
        self._write_new(rows, demand.private_tokens)
        self.verify()
        return True

    def _honest_hit(self, grant: Grant, row: int, values: IntArray) -> int:
        """What is cached holds its tokens before anything of the prompt is written."""
        hit, n = grant.cached_tokens, len(values)
        require(0 <= hit < n, "honest hit", f"a hit of {hit} of {n} prompt tokens")
        slots = self.allocator.addresses(row)[:hit]
        self.memory.check_slots(slots)
        wrong = np.flatnonzero(self.memory.values[slots] != values[:hit])
        require(
            not len(wrong),
            "honest hit",
            f"of {hit} cached tokens those at {wrong.tolist()} are not in memory",
        )
        self.counts["hits"] += hit > 0
        return hit

    def grow(self, rows: IntArray, n: int = 1) -> bool:
        if not self._execute(self.ask("grow", rows, n)):
            return False
        self._write_new(rows, n)
        self.verify()
        return True

    def fork(self, parent: int, children: IntArray) -> bool:
        prompt = len(self.tokens[parent])
        output = max(1, self.finals[parent] + 1 - prompt)
        try:
            grant = self.ask("fork", parent, children, Demand(prompt, output))
        except NeverFits:
            return False
        if not self._execute(grant):
            return False
        self.known.pop(parent, None)
        for child in children.tolist():
            self.tokens[child] = self.tokens[parent]
            self.finals[child], self.group_of[child] = self.finals[parent], self.group_of[parent]
        self.verify()
        return True

    def reassign(self, rows: IntArray, parents: IntArray) -> bool:
        if not self._execute(self.ask("reassign", rows, parents)):
            return False
        chosen = [self.tokens[parent] for parent in parents.tolist()]
        self.tokens.update(zip(rows.tolist(), chosen, strict=True))
        self.verify()
        return True

    def truncate(self, row: int, n: int) -> bool:
        try:
            grant = self.ask("truncate", row, n)
        except Unsupported:
            self.counts["unsupported"] += 1
            return False
        granted = self._execute(grant)
        require(granted, "protocol", "truncate answers with a grant, never None")
        self.known.pop(row, None)
        self.tokens[row] = self.tokens[row][:-n]
        self.verify()
        return True

    def suspend(self, rows: IntArray, ticket: int) -> bool:
        """Move sequences to host memory under a ticket that is not in use."""
        could_grow = self.allocator.headroom(rows) > 0
        try:
            grant = self.ask("suspend", rows, ticket)
        except Unsupported:
            require(not self.counts["suspends"], "protocol", "suspend was supported before")
            self.swaps = False
            return False
        if not self._execute(grant):
            self.counts["suspend_refusals"] += 1
            return False
        self.counts["suspends"] += 1
        leaving = rows.tolist()
        self.tickets[ticket] = Suspended(
            [self.tokens.pop(row) for row in leaving],
            [self.finals.pop(row) for row in leaving],
            [self.group_of.pop(row) for row in leaving],
            [self.known.pop(row, checks.NOBODY) for row in leaving],
            could_grow,
        )
        self.verify()
        return True

    def resume(self, rows: IntArray, ticket: int) -> bool:
        """Bring a ticket's sequences back in other rows, as many as they were."""
        saved, alone = self.tickets[ticket], not self.tokens
        try:
            grant = self.ask("resume", rows, ticket)
        except (NeverFits, Unsupported) as error:
            raise Violation(f"protocol: what was suspended is not resumed: {error}") from error
        if not self._execute(grant):
            self.counts["resume_refusals"] += 1
            stuck = alone and saved.could_grow
            require(not stuck, "swaps", "an empty pool refuses what fitted when it was suspended")
            return False
        self.counts["resumes"] += 1
        del self.tickets[ticket]
        for i, row in enumerate(rows.tolist()):
            self.tokens[row], self.finals[row] = saved.tokens[i], saved.finals[i]
            self.group_of[row], self.known[row] = saved.groups[i], saved.known[i]
        self.verify()
        if not alone and max(map(len, saved.tokens)) < self.geometry.max_len:
            stuck = self.allocator.headroom(rows) == 0
            require(not stuck, "swaps", "what was resumed beside others cannot grow by one slot")
        return True

    def release(self, rows: IntArray) -> None:
        granted = self._execute(self.ask("release", rows))
        require(granted, "protocol", "release answers with a grant, never None")
        for row in rows.tolist():
            del self.tokens[row], self.finals[row], self.group_of[row]
            self.known.pop(row, None)
        self.verify()

    def release_all(self) -> None:
        """End everything that lives; then bring back what is suspended, and end that too.

        Whenever nobody lives, nothing may be active.
        """
        self.release(self.live)
        for ticket, saved in list(self.tickets.items()):
            if self.resume(np.arange(len(saved.tokens)), ticket):
                self.release(self.live)

    def check_growth(self, rows: IntArray, at_most: int = 12) -> None:
        """Check that `headroom` is exact and `quiet_steps` honest for this batch."""
        before = self.snapshot()
        checks.headroom_is_exact(self.allocator, rows)
        checks.quiet_steps_are_honest(self.allocator, rows, self.final(rows), at_most)
        require(before == self.snapshot(), "atomic", "a query changed the state")

    # -- memory ------------------------------------------------------------------------------
    def _execute(self, grant: Grant | None) -> bool:
        """Execute a grant of any call but `admit`; say whether there is one."""
        if grant is None:
            return False
        self.memory.map(grant)
        self.memory.copy(grant)
        return True

    def _write_new(self, rows: IntArray, n: int) -> None:
        if not n:
            return
        for row in rows.tolist():
            known = self.known.get(row, checks.NOBODY)[len(self.tokens[row]) :][:n]
            fresh = self.memory.fresh(n - len(known))
            self.tokens[row] = np.concatenate([self.tokens[row], known, fresh])
            self.finals[row] = max(self.finals[row], len(self.tokens[row]))
            slots = self.allocator.addresses(row)
            self.memory.write(slots[-n:], self.tokens[row][-n:])
