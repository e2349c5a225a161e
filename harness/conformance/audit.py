"""Watches one allocator: asks it, and checks after each call what can be seen from outside.

Beside the allocator runs a twin that is told only what was granted: never a refused call, never a
query.  It must answer alike, which shows both determinism and that refusals leave no trace.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from allocators.base import Allocator, Grant, IntArray, NeverFits, Prompt, Unsupported
from harness.conformance import checks
from harness.conformance.memory import SlotMemory, Violation, require

Make = Callable[[], Allocator]


@dataclass(frozen=True, slots=True)
class Suspended:
    """What a ticket must bring back, by sequence; `could_grow`: each, by a slot, when it left."""

    tokens: list[IntArray]
    finals: list[int]
    groups: list[int]
    known: list[IntArray]
    could_grow: bool


class Audit:
    """Live sequences with the values they must read back.

    `tokens[row]` are the values by position, `finals[row]` the length at which it will end and
    `group_of[row]` the number of its group; `tickets` are those that are swapped out.  `counts`
    says what happened: grants, refusals, copies, maps, unmaps, hits, swaps, bursts; `history` lists
    the calls.  While `planning` a step is open, and places that are promised have no memory yet.
    """

    def __init__(self, make: Make, memory: Callable[[Allocator], SlotMemory]) -> None:
        self.make, self.allocator, self.twin = make, make(), make()
        self.geometry = self.allocator.geometry
        self.memory = memory(self.allocator)
        self.capacity = sum(self.allocator.balance())
        self.tokens: dict[int, IntArray] = {}
        self.finals: dict[int, int] = {}
        self.group_of: dict[int, int] = {}
        self.tickets: dict[int, Suspended] = {}
        self.counts: Counter[str] = Counter()
        self.planning = False
        self.history: list[tuple[str, tuple[object, ...], str]] = []
        self.verify()

    @property
    def live(self) -> IntArray:
        return np.array(list(self.tokens), dtype=np.int64)

    @property
    def idle(self) -> list[int]:
        return [s for s in range(self.geometry.max_seqs) if s not in self.tokens]

    def final(self, rows: IntArray) -> IntArray:
        return np.array([self.finals[s] for s in rows.tolist()], dtype=np.int64)

    def story(self, since: int = 0) -> list[str]:
        """Return the calls from number `since` on, one line each."""
        return [
            f"{method}({', '.join(map(text, args))}) -> {answer}"
            for method, args, answer in self.history[since:]
        ]

    def ask(self, method: str, *args: object) -> Grant | None:
        """Call; a refusal or an error must leave no trace, a grant must equal the twin's."""
        self.history.append((method, args, "fails"))
        try:
            grant = _call(self.allocator, method, args)
        except (NeverFits, Unsupported):
            self._require_no_trace(method, copy.deepcopy(self.twin))
            raise
        self.history[-1] = method, args, "refused" if grant is None else "granted"
        if grant is None:
            self.counts["refusals"] += 1
            twin = copy.deepcopy(self.twin)
            self._require_no_trace(method, twin)
            again = _call(self.allocator, method, args)
            require(again is None, "atomic", f"{method} was refused, then granted")
            self._require_no_trace(method, twin)
            require(
                _call(twin, method, args) is None,
                "deterministic",
                f"{method} is refused, but granted by a twin that saw the same grants",
            )
            return None
        twin = _call(self.twin, method, args)
        if twin is None or not checks.equal_grants(grant, twin):
            raise Violation(
                f"deterministic: a twin that saw the same grants answers {method} with "
                f"{checks.told(twin)}, not {checks.told(grant)}"
            )
        self._count(method, grant)
        return grant

    def _require_no_trace(self, method: str, twin: Allocator) -> None:
        """Check that a copy of the twin, which was not asked, is still in the same state."""
        same = self.snapshot() == self.snapshot(twin)
        require(same, "atomic", f"a refused {method} changed the state")

    def _count(self, method: str, grant: Grant) -> None:
        counts = self.counts
        counts["grants"] += 1
        counts["copies"] += len(grant.copies)
        counts["maps"] += len(grant.maps)
        counts["unmaps"] += len(grant.unmaps)
        counts["conversions"] += len(grant.converted)
        # Whatever else moves to host memory and back does so for a prefix cache.
        counts["saves"] += len(grant.swaps_out) * (method != "suspend")
        counts["fetches"] += len(grant.swaps_in) * (method != "resume")

    # -- checks ------------------------------------------------------------------------------
    def snapshot(self, allocator: Allocator | None = None) -> tuple[object, ...]:
        """Return what can be observed; no account is due of a step that is still planned."""
        rows, asked = self.live, allocator or self.allocator
        return checks.snapshot(asked, rows, self.final(rows), accounts=not self.planning)

    def verify(self) -> None:
        """Check every invariant that can be seen from outside, then the policy's own."""
        rows, allocator = self.live, self.allocator
        require(
            set(np.flatnonzero(allocator.active).tolist()) == set(self.tokens),
            "protocol",
            "`active` does not say who lives",
        )
        found = self.memory.read_back(self.tokens, self.twin)
        checks.conservation(allocator, self.capacity, self.memory)
        checks.usage_adds_up(allocator, rows, self.final(rows), *self.memory.held_bytes(found))
        # The last of them are over but still held, as in a run-to-completion batch.
        part = rows[: (len(rows) + 1) // 2]
        held = self.memory.held_bytes(found[: len(part)])
        checks.usage_adds_up(allocator, part, self.final(part), *held)
        if not len(rows):
            checks.nothing_is_held(allocator)
        allocator.check()


def text(arg: object) -> str:
    """Return an argument of a call as a line of a story shows it."""
    if isinstance(arg, Prompt):
        return f"Prompt({arg.tokens}{', ids' * (arg.token_ids is not None)})"
    return str(arg.tolist() if isinstance(arg, np.ndarray) else arg)


def _call(allocator: Allocator, method: str, args: tuple) -> Grant | None:
    """Call with copies of the arrays, so that a policy may keep or overwrite what it is given."""
    own = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]
    return getattr(allocator, method)(*own)
