"""The requests of a run, by columns.

Dependence. A request may come `after` another one of the table: it arrives `think_s` seconds after
that one has ended, whenever that is. A request may have many dependants (sub-agents) and comes
after at most one; those after none, the roots, arrive at their `arrival_s`.

Prompt identities. Two prompts share KV exactly where they have the same tokens in a leading run,
so each prompt token has an identity, an int64, and equality of identities is all that a prefix
index needs:

    real token ids          the ids themselves
    a trace's block ids     block * block_tokens + offset                      >= 0
    a shared prefix         prefix * prefix_tokens + offset                    >= 0
    kept history            those of the request before it, prompt and output
    anything else           -(1 + request * 2**32 + position)                  <  0, never repeated
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError, one_of, whole

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: one, or an array of them
Position = TypeVar("Position", int, IntArray)

TOO_LONG = ("error", "skip", "truncate")


def unique_ids(request: int, start: int, stop: int) -> IntArray:
    """Identities of positions `start`..`stop` - 1 that no other request has: int64[stop - start].

    Generated tokens may use it too, at positions from `prompt_tokens` on.
    """
    return unique_id(request, np.arange(start, stop, dtype=np.int64))


def unique_id(request: int, position: Position) -> Position:
    """Identity of a position, or of each, that no other request has."""
    return -(1 + (request << 32) + position)


@dataclass
class RequestTable:
    """n requests in order of arrival. Column arrays have length n; lengths are in tokens."""

    # From the first request's; ignored in a closed loop. Of a dependant: the earliest possible.
    arrival_s: FloatArray
    prompt_tokens: IntArray  # >= 1
    output_tokens: IntArray  # >= 1
    ids: list[str] | None = None
    token_ids: list[IntArray] | None = None  # real token ids, one array a request
    hash_ids: list[IntArray] | None = None  # the trace's own identities of whole prompt blocks
    hash_block_tokens: int = 0
    prefix_id: IntArray | None = None  # which of the shared prefixes a prompt starts with
    prefix_tokens: int = 0
    after: IntArray | None = None  # index < its own of the request that must end first; -1: none
    think_s: FloatArray | None = None  # from that end to the arrival, >= 0; 0 where after is -1
    keeps_history: bool = False  # a prompt begins with the prompt and output that it comes after
    concurrency: int | None = None  # closed loop: conversations in flight, see `roots`
    timed: bool = False  # arrival_s was recorded, not generated
    notes: list[str] = field(default_factory=list)  # what to tell the user, a line each

    def __post_init__(self) -> None:
        if (self.after is None) != (self.think_s is None):
            raise WorkloadError("after and think_s are given together or not at all")
        if self.after is not None:
            late = np.flatnonzero((self.after >= np.arange(len(self))) | (self.after < -1))
            if len(late):
                i = int(late[0])
                raise WorkloadError(
                    f"request {self.name(i)!r} comes after index {self.after[i]}; expected -1 or "
                    f"an index below its own, {i}"
                )
            if not (np.isfinite(self.think_s) & (self.think_s >= 0)).all():
                raise WorkloadError("think_s holds a time that is not finite and >= 0")

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def roots(self) -> IntArray:
        """Indices of the requests that come after none; all where nothing depends.

        A root and all that comes after it, directly or not, are one conversation.
        """
        return np.arange(len(self)) if self.after is None else np.flatnonzero(self.after < 0)

    def root_of(self) -> IntArray:
        """Index of the root of each request's conversation, int64[n]."""
        root = np.arange(len(self))
        if self.after is not None:
            for i in np.flatnonzero(self.after >= 0).tolist():  # the one before it comes first
                root[i] = root[self.after[i]]
        return root

    def start_at(self, times_s: FloatArray) -> None:
        """Set when the roots arrive, and with them the earliest possible times of the others."""
        self.arrival_s = np.zeros(len(self))
        self.arrival_s[self.roots] = times_s
        if self.after is not None:
            for i in np.flatnonzero(self.after >= 0).tolist():
                self.arrival_s[i] = self.arrival_s[self.after[i]] + self.think_s[i]

    def name(self, i: int) -> str:
        """How request `i` is called in messages and results: its own id, else its index."""
        return self.ids[i] if self.ids is not None else str(i)

    def prompt_ids(self, i: int) -> IntArray | None:
        """Identity of each prompt token of request `i`, int64[prompt_tokens[i]], made on demand.

        None when nothing is known of any prompt: then no token is shared with another request.
        """
        if self.keeps_history and self.after is not None and self.after[i] >= 0:
            return self._continued_ids(i)
        n = int(self.prompt_tokens[i])
        if self.token_ids is not None:
            return self.token_ids[i][:n]
        if self.hash_ids is not None:
            block = self.hash_block_tokens
            offsets = np.arange(block, dtype=np.int64)
            known = (self.hash_ids[i][:, None] * block + offsets).reshape(-1)[:n]
        elif self.prefix_id is not None:
            first = int(self.prefix_id[i]) * self.prefix_tokens
            known = np.arange(first, first + min(n, self.prefix_tokens), dtype=np.int64)
        elif self.keeps_history:
            known = np.empty(0, dtype=np.int64)
        else:
            return None
        return np.concatenate([known, unique_ids(i, len(known), n)])

    def _continued_ids(self, i: int) -> IntArray:
        """Identities of a prompt that goes on where the request before it, `after`, had ended."""
        chain = [i]
        while self.after[chain[-1]] >= 0:
            chain.append(int(self.after[chain[-1]]))
        root = chain.pop()
        before, known = root, self.prompt_ids(root)
        for turn in reversed(chain):
            n, end = int(self.prompt_tokens[turn]), len(known) + int(self.output_tokens[before])
            # A history longer than the prompt was cut with it.
            history = np.concatenate([known, unique_ids(before, len(known), end)])[:n]
            known = np.concatenate([history, unique_ids(turn, len(history), n)])
            before = turn
        return known

    def take(self, rows: IntArray) -> RequestTable:
        """The requests `rows`, in that order, as a new table; notes are kept.

        Where requests depend, `rows` rise, and those that come after a request which is not taken
        are left out too, with a note: they could never arrive.
        """
        rows = np.asarray(rows, dtype=np.int64)
        left_out = 0
        if self.after is not None:
            reached = self._reached(rows)
            left_out = len(rows) - len(reached)
            rows = reached
        changed = {}
        for column in fields(self):
            value = getattr(self, column.name)
            if column.name == "notes":
                changed["notes"] = list(value)
            elif isinstance(value, np.ndarray):
                changed[column.name] = value[rows]
            elif isinstance(value, list):
                changed[column.name] = [value[row] for row in rows]
        if self.after is not None:
            place = np.full(len(self) + 1, -1)  # the last entry answers for index -1: none
            place[rows] = np.arange(len(rows))
            changed["after"] = place[changed["after"]]
        if left_out:
            changed["notes"].append(
                f"{left_out} requests that come after a skipped one were skipped with it"
            )
        return replace(self, **changed)

    def _reached(self, rows: IntArray) -> IntArray:
        """Those of `rows` whose whole chain of predecessors is in `rows` too."""
        if len(rows) > 1 and np.diff(rows).min() <= 0:
            raise WorkloadError("requests that depend on others are taken in rising order only")
        reached = np.zeros(len(self), dtype=bool)
        reached[rows] = True
        for i in np.flatnonzero(self.after >= 0).tolist():
            reached[i] &= reached[self.after[i]]
        return rows[reached[rows]]

    def limit(self, max_len: int, too_long: str = "error") -> RequestTable:
        """Return a table with prompt + output <= `max_len` tokens for every request.

        `too_long` says what happens to the others. error: raise WorkloadError with the first of
        them and their number. skip: leave them out, and all that come after them. truncate: keep
        the output and cut the prompt at its end, so that a shared prefix stays one, down to 1
        token; an output that still does not fit is cut to `max_len` - 1. Notes say how many were
        skipped or cut. The table itself is returned where all fit; it is never changed.
        """
        one_of("workload.too_long", too_long, TOO_LONG)
        whole("max_len", max_len, at_least=2)  # room for a prompt and an output
        total = self.prompt_tokens + self.output_tokens
        long = np.flatnonzero(total > max_len)
        if not len(long):
            return self
        if too_long == "error":
            i = int(long[0])
            raise WorkloadError(
                f"{len(long)} of {len(self)} requests are longer than max_len={max_len} tokens; "
                f"the first is request {self.name(i)!r}: prompt {self.prompt_tokens[i]} + output "
                f"{self.output_tokens[i]} = {total[i]}; raise engine.max_len, or set "
                "workload.too_long=skip or workload.too_long=truncate"
            )
        count = f"{len(long)} of {len(self)} requests longer than max_len={max_len} tokens"
        if too_long == "skip":
            kept = self.take(np.flatnonzero(total <= max_len))
            if not len(kept):
                raise WorkloadError(f"{count}: skipping them leaves no request; raise max_len")
            # Before the note of `take` about those that came after them.
            kept.notes.insert(len(self.notes), f"{count} were skipped")
            return kept
        output = np.minimum(self.output_tokens, max_len - 1)
        prompt = np.minimum(self.prompt_tokens, max_len - output)
        lost = int(total.sum() - (prompt + output).sum())
        note = f"{count} were cut to it, by {lost} tokens in all"
        return replace(self, prompt_tokens=prompt, output_tokens=output, notes=[*self.notes, note])
