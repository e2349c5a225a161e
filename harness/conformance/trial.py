"""Drives one allocator, executes its grants on a model of memory and checks after each step."""

from __future__ import annotations

from functools import partial

import numpy as np

from allocators.base import Demand, IntArray, NeverFits, Prompt, Unsupported
from harness.conformance import checks
from harness.conformance.audit import Make, Suspended, text
from harness.conformance.memory import Violation, require
from harness.conformance.steps import Steps, Writes

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


class Trial(Steps):
    """One method for each call of the protocol; each says whether the call was granted.

    Outside `step` each call is a step of its own.  `swaps` turns false when the policy says that it
    cannot swap.  `known[row]` are the values of a lone sequence whose prompt's tokens go on beyond
    it, until it is forked or rolled back.
    """

    def __init__(self, make: Make) -> None:
        super().__init__(make)
        self.swaps = True
        self.known: dict[int, IntArray] = {}
        self._groups = 0

    # -- operations --------------------------------------------------------------------------
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> bool:
        """Admit a group; `rows[0]` will write the prompt, copies and private tokens follow."""
        self._check_untouched(rows)
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
        n, ids, row = prompt.tokens, prompt.token_ids, int(rows[0])
        hit = grant.cached_tokens
        require(0 <= hit < n, "honest hit", f"a hit of {hit} of {n} prompt tokens")
        self.counts["hits"] += hit > 0
        known = self.memory.fresh(n) if ids is None else self.memory.prefix_values(ids)
        values = known[:n]
        self.memory.map(grant)
        self._step.new_slots.append(partial(self._write_prompt, row, hit, values))
        self._step.copies.append(partial(self.memory.copy, grant))
        self._groups += 1
        if len(rows) == 1:
            self.known[row] = known
        for row in rows.tolist():
            self.tokens[row] = values
            self.finals[row] = demand.prompt_tokens + demand.output_tokens - 1
            self.group_of[row] = self._groups
        self._step.private += self._lengthen(rows, demand.private_tokens)
        self._settle()
        return True

    def _write_prompt(self, row: int, hit: int, values: IntArray) -> None:
        """Write a prompt behind what is cached of it, which must be there by then."""
        self.memory.require_hit(row, values[:hit])
        self.memory.write_tokens(row, hit, values[hit:])

    def grow(self, rows: IntArray, n: int = 1) -> bool:
        self._check_untouched(rows)
        if not self._execute(self.ask("grow", rows, n)):
            if n == 1:
                checks.leading_is_exact(self.allocator, rows)
            return False
        self._step.new_slots += self._lengthen(rows, n)
        self._settle()
        return True

    def fork(self, parent: int, children: IntArray) -> bool:
        self._check_untouched(np.append(children, parent))
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
        self._settle()
        return True

    def reassign(self, rows: IntArray, parents: IntArray) -> bool:
        self._check_untouched(rows)
        if not self._execute(self.ask("reassign", rows, parents)):
            return False
        chosen = [self.tokens[parent] for parent in parents.tolist()]
        self.tokens.update(zip(rows.tolist(), chosen, strict=True))
        self._settle()
        return True

    def truncate(self, row: int, n: int) -> bool:
        self._check_untouched(np.array([row]))
        try:
            grant = self.ask("truncate", row, n)
        except Unsupported:
            self.counts["unsupported"] += 1
            return False
        granted = self._execute(grant)
        require(granted, "protocol", "truncate answers with a grant, never None")
        self.known.pop(row, None)
        self.tokens[row] = self.tokens[row][:-n]
        self._settle()
        return True

    def suspend(self, rows: IntArray, ticket: int) -> bool:
        """Move sequences to host memory under a ticket that is not in use."""
        self._check_untouched(rows)
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
        self._settle()
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
        if not alone and max(map(len, saved.tokens)) < self.geometry.max_len:
            text = "what was resumed beside others cannot grow by one slot"
            require(checks.can_grow_soon(self.allocator, rows), "swaps", text)
        self._settle()
        return True

    def release(self, rows: IntArray) -> None:
        self._end(rows, "release")

    def preempt(self, rows: IntArray) -> None:
        """End sequences that would come back, by another admission."""
        self._end(rows, "preempt")

    def _end(self, rows: IntArray, method: str) -> None:
        self._check_untouched(rows)
        granted = self._execute(self.ask(method, rows))
        require(granted, "protocol", f"{method} answers with a grant, never None")
        for row in rows.tolist():
            del self.tokens[row], self.finals[row], self.group_of[row]
            self.known.pop(row, None)
        self._settle()

    def release_all(self) -> None:
        """End everything that lives; then bring back what is suspended, and end that too.

        Whenever nobody lives, nothing may be active.
        """
        if len(self.tokens):
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

    def _lengthen(self, rows: IntArray, n: int) -> Writes:
        """Give each row `n` tokens more; return what writes them, wherever they then are."""
        self._step.rows.update(rows.tolist())
        for row in rows.tolist() if n else []:
            known = self.known.get(row, checks.NOBODY)[len(self.tokens[row]) :][:n]
            fresh = self.memory.fresh(n - len(known))
            self.tokens[row] = np.concatenate([self.tokens[row], known, fresh])
            self.finals[row] = max(self.finals[row], len(self.tokens[row]))
        return [partial(self._write_last, row, n) for row in rows.tolist()] if n else []

    def _write_last(self, row: int, n: int) -> None:
        values = self.tokens[row]
        self.memory.write_tokens(row, len(values) - n, values[-n:])
