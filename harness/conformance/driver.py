"""Drives one allocator, executes its grants on a model of memory and checks after each call.

Beside the allocator runs a twin that is told only what was granted: never a refused call, never a
query.  It must answer alike, which shows both determinism and that refusals leave no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from allocators.base import Allocator, Demand, Grant, IntArray, NeverFits, Prompt, Unsupported
from harness.conformance import checks
from harness.conformance.memory import Memory, Violation, require

__all__ = ["Driver", "Violation", "fits_when_empty"]

Make = Callable[[], Allocator]


def fits_when_empty(make: Make, size: int, prompt: Prompt, demand: Demand) -> bool:
    """Whether a fresh allocator admits this gang.  It may not answer None: nothing will free up."""
    try:
        grant = make().admit(np.arange(size), prompt, demand)
    except NeverFits:
        return False
    require(grant is not None, "never fits", f"an empty pool refuses {_text(prompt)} x {size}")
    return True


class Driver:
    """Live sequences with the values they must read back.

    `tokens[seq]` are the values by position, `finals[seq]` the length at which it will end and
    `gang[seq]` the sequences it started with.  `counts` says what happened: grants, refusals,
    copies, maps, unmaps, hits;
    `history` lists the calls.
    """

    def __init__(self, make: Make) -> None:
        self.make, self.allocator, self.twin = make, make(), make()
        self.geometry = self.allocator.geometry
        self.memory = Memory(self.allocator)
        self.capacity = sum(self.allocator.balance())
        self.tokens: dict[int, IntArray] = {}
        self.finals: dict[int, int] = {}
        self.gang: dict[int, int] = {}
        self.counts: Counter[str] = Counter()
        self.history: list[tuple[str, tuple[object, ...], str]] = []
        self._gangs = 0
        self.verify()

    @property
    def live(self) -> IntArray:
        return np.array(list(self.tokens), dtype=np.int64)

    @property
    def idle(self) -> list[int]:
        return [s for s in range(self.geometry.max_seqs) if s not in self.tokens]

    def final(self, seqs: IntArray) -> IntArray:
        return np.array([self.finals[s] for s in seqs.tolist()], dtype=np.int64)

    # -- operations --------------------------------------------------------------------------
    def admit(self, seqs: IntArray, prompt: Prompt, demand: Demand) -> bool:
        """Admit a gang; the prompt is written by `seqs[0]`, then copied, then the rest follows."""
        try:
            grant = self._call("admit", seqs, prompt, demand)
        except NeverFits:
            possible = fits_when_empty(self.make, len(seqs), prompt, demand)
            require(not possible, "never fits", f"{_text(prompt)} x {len(seqs)} fits when empty")
            self.counts["never_fits"] += 1
            return False
        if grant is None:
            fits_empty = len(self.tokens) and fits_when_empty(self.make, len(seqs), prompt, demand)
            require(bool(fits_empty), "never fits", f"{_text(prompt)} x {len(seqs)} never will")
            return False
        hit, n = grant.cached_tokens, prompt.tokens
        require(0 <= hit < n, "honest hit", f"a hit of {hit} of {n} prompt tokens")
        self.counts["hits"] += hit > 0
        known = prompt.token_ids is not None
        values = self.memory.prefix_values(prompt.token_ids) if known else self.memory.fresh(n)
        self.memory.map(grant)
        self.memory.write(self.allocator.addresses(int(seqs[0]))[hit:n], values[hit:])
        self.memory.copy(grant)
        self._gangs += 1
        for seq in seqs.tolist():
            self.tokens[seq] = values
            self.finals[seq] = demand.prompt_tokens + demand.output_tokens - 1
            self.gang[seq] = self._gangs
        self._write_new(seqs, demand.private_tokens)
        self.verify()
        return True

    def grow(self, seqs: IntArray, n: int = 1) -> bool:
        grant = self._call("grow", seqs, n)
        if grant is None:
            return False
        self.memory.map(grant)
        self.memory.copy(grant)
        self._write_new(seqs, n)
        self.verify()
        return True

    def fork(self, parent: int, children: IntArray) -> bool:
        prompt = len(self.tokens[parent])
        output = max(1, self.finals[parent] + 1 - prompt)
        try:
            grant = self._call("fork", parent, children, Demand(prompt, output))
        except NeverFits:
            return False
        if grant is None:
            return False
        self.memory.map(grant)
        self.memory.copy(grant)
        for child in children.tolist():
            self.tokens[child] = self.tokens[parent]
            self.finals[child], self.gang[child] = self.finals[parent], self.gang[parent]
        self.verify()
        return True

    def reassign(self, rows: IntArray, parents: IntArray) -> bool:
        grant = self._call("reassign", rows, parents)
        if grant is None:
            return False
        self.memory.map(grant)
        self.memory.copy(grant)
        chosen = [self.tokens[parent] for parent in parents.tolist()]
        self.tokens.update(zip(rows.tolist(), chosen, strict=True))
        self.verify()
        return True

    def truncate(self, seq: int, n: int) -> bool:
        try:
            grant = self._call("truncate", seq, n)
        except Unsupported:
            self.counts["unsupported"] += 1
            return False
        require(grant is not None, "protocol", "truncate answers with a grant, never None")
        self.memory.map(grant)
        self.memory.copy(grant)
        self.tokens[seq] = self.tokens[seq][:-n]
        self.verify()
        return True

    def release(self, seqs: IntArray) -> None:
        grant = self._call("release", seqs)
        require(grant is not None, "protocol", "release answers with a grant, never None")
        self.memory.map(grant)
        self.memory.copy(grant)
        for seq in seqs.tolist():
            del self.tokens[seq], self.finals[seq], self.gang[seq]
        self.verify()

    def release_all(self) -> None:
        """End everything that lives; afterwards nothing may be active."""
        self.release(self.live)
        active, _, _ = self.allocator.balance()
        require(active == 0, "total release", f"{active} units are active and nobody lives")
        checks.idle_usage(self.allocator)

    def check_growth(self, seqs: IntArray, at_most: int = 12) -> None:
        """Check that `headroom` is exact and `quiet_steps` honest for this batch."""
        before = checks.snapshot(self.allocator, self.live, self.final(self.live))
        checks.headroom_is_exact(self.allocator, seqs)
        checks.quiet_steps_are_honest(self.allocator, seqs, self.final(seqs), at_most)
        after = checks.snapshot(self.allocator, self.live, self.final(self.live))
        require(before == after, "atomic", "a query changed the state")

    def story(self, since: int = 0) -> list[str]:
        """Return the calls from number `since` on, one line each."""
        return [
            f"{method}({', '.join(map(_text, args))}) -> {answer}"
            for method, args, answer in self.history[since:]
        ]

    # -- checks ------------------------------------------------------------------------------
    def verify(self) -> None:
        """Check every invariant that can be seen from outside, then the policy's own."""
        seqs, allocator = self.live, self.allocator
        require(
            set(np.flatnonzero(allocator.active).tolist()) == set(self.tokens),
            "protocol",
            "`active` does not say who lives",
        )
        found = self.memory.resolve(allocator.layout(seqs))
        for seq, slots in zip(seqs.tolist(), found, strict=True):
            self._reads_back(seq, slots)
        checks.conservation(allocator, self.capacity, self.memory)
        checks.usage_adds_up(allocator, seqs, self.final(seqs))
        # The last of them are over but still held, as in a run-to-completion batch.
        part = seqs[: (len(seqs) + 1) // 2]
        checks.usage_adds_up(allocator, part, self.final(part))
        allocator.check()

    def _reads_back(self, seq: int, slots: IntArray) -> None:
        expected, own = self.tokens[seq], self.allocator.addresses(seq)
        length = int(self.allocator.length[seq])
        require(
            length == len(expected) == len(slots),
            "addressing",
            f"sequence {seq} is {length} long and {len(expected)} were granted",
        )
        require(
            np.array_equal(own, slots),
            "addressing",
            f"layout and addresses differ for sequence {seq}",
        )
        require(
            np.array_equal(own, self.twin.addresses(seq)),
            "deterministic",
            f"a twin with the same calls put sequence {seq} elsewhere",
        )
        self.memory.check_slots(slots)
        wrong = np.flatnonzero(self.memory.values[slots] != expected)
        if len(wrong):
            raise Violation(
                f"single writer: sequence {seq} does not read back its own tokens at positions "
                f"{wrong.tolist()} of {length} (a write, copy or map went wrong)"
            )

    def _write_new(self, seqs: IntArray, n: int) -> None:
        if not n:
            return
        for seq in seqs.tolist():
            self.tokens[seq] = np.concatenate([self.tokens[seq], self.memory.fresh(n)])
            self.finals[seq] = max(self.finals[seq], len(self.tokens[seq]))
            slots = self.allocator.addresses(seq)
            self.memory.write(slots[-n:], self.tokens[seq][-n:])

    def _call(self, method: str, *args: object) -> Grant | None:
        """Call; a refusal or an error must leave no trace, a grant must equal the twin's."""
        before = checks.snapshot(self.allocator, self.live, self.final(self.live))
        self.history.append((method, args, "fails"))

        def unchanged() -> None:
            after = checks.snapshot(self.allocator, self.live, self.final(self.live))
            require(before == after, "atomic", f"a refused {method} changed the state")

        try:
            grant = _ask(self.allocator, method, args)
        except (NeverFits, Unsupported):
            unchanged()
            raise
        self.history[-1] = method, args, "refused" if grant is None else "granted"
        if grant is None:
            self.counts["refusals"] += 1
            unchanged()
            again = _ask(self.allocator, method, args)
            require(again is None, "atomic", f"{method} was refused, then granted")
            unchanged()
            return None
        twin = _ask(self.twin, method, args)
        require(
            twin is not None and checks.equal_grants(grant, twin),
            "deterministic",
            f"a twin that saw the same grants answers {method} with {twin}, not {grant}",
        )
        self.counts["grants"] += 1
        self.counts["copies"] += len(grant.copies)
        self.counts["maps"] += len(grant.maps) + len(grant.ahead_maps)
        self.counts["unmaps"] += len(grant.unmaps)
        return grant


def _text(arg: object) -> str:
    if isinstance(arg, Prompt):
        return f"Prompt({arg.tokens}{', ids' * (arg.token_ids is not None)})"
    return str(arg.tolist() if isinstance(arg, np.ndarray) else arg)


def _ask(allocator: Allocator, method: str, args: tuple) -> Grant | None:
    """Call with copies of the arrays, so that a policy may keep or overwrite what it is given."""
    own = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
    return getattr(allocator, method)(*own)
