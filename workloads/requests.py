"""The requests of a run, by columns.

Prompt identities. Two prompts share KV exactly where they have the same tokens in a leading run,
so each prompt token has an identity, an int64, and equality of identities is all that a prefix
index needs:

    real token ids          the ids themselves
    a trace's block ids     block * block_tokens + offset                      >= 0
    a shared prefix         prefix * prefix_tokens + offset                    >= 0
    anything else           -(1 + request * 2**32 + position)                  <  0, never repeated
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from workloads.errors import WorkloadError, one_of, whole

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

TOO_LONG = ("error", "skip", "truncate")


def unique_ids(request: int, start: int, stop: int) -> IntArray:
    """Identities of positions `start`..`stop` - 1 that no other request has: int64[stop - start].

    Generated tokens may use it too, at positions from `prompt_tokens` on.
    """
    return -(1 + (request << 32) + np.arange(start, stop, dtype=np.int64))


@dataclass
class RequestTable:
    """n requests in order of arrival. Column arrays have length n; lengths are in tokens."""

    arrival_s: FloatArray  # from the first request's; ignored in a closed loop
    prompt_tokens: IntArray  # >= 1
    output_tokens: IntArray  # >= 1
    ids: list[str] | None = None
    token_ids: list[IntArray] | None = None  # real token ids, one array a request
    hash_ids: list[IntArray] | None = None  # the trace's own identities of whole prompt blocks
    hash_block_tokens: int = 0
    prefix_id: IntArray | None = None  # which of the shared prefixes a prompt starts with
    prefix_tokens: int = 0
    concurrency: int | None = None  # closed loop: a request is released when one ends
    timed: bool = False  # arrival_s was recorded, not generated
    notes: list[str] = field(default_factory=list)  # what to tell the user, a line each

    def __len__(self) -> int:
        return len(self.arrival_s)

    def name(self, i: int) -> str:
        """How request `i` is called in messages and results: its own id, else its index."""
        return self.ids[i] if self.ids is not None else str(i)

    def prompt_ids(self, i: int) -> IntArray | None:
        """Identity of each prompt token of request `i`, int64[prompt_tokens[i]], made on demand.

        None when nothing is known of any prompt: then no token is shared with another request.
        """
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
        else:
            return None
        return np.concatenate([known, unique_ids(i, len(known), n)])

    def take(self, rows: IntArray) -> RequestTable:
        """The requests `rows`, in that order, as a new table; notes are kept."""
        changed = {}
        for column in fields(self):
            value = getattr(self, column.name)
            if column.name == "notes":
                changed["notes"] = list(value)
            elif isinstance(value, np.ndarray):
                changed[column.name] = value[rows]
            elif isinstance(value, list):
                changed[column.name] = [value[row] for row in rows]
        return replace(self, **changed)

    def limit(self, max_len: int, too_long: str = "error") -> RequestTable:
        """Return a table with prompt + output <= `max_len` tokens for every request.

        `too_long` says what happens to the others. error: raise WorkloadError with the first of
        them and their number. skip: leave them out. truncate: keep the output and cut the prompt
        at its end, so that a shared prefix stays one, down to 1 token; an output that still does
        not fit is cut to `max_len` - 1. Notes say how many were skipped or cut. The table itself
        is returned where all fit; it is never changed.
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
            if len(long) == len(self):
                raise WorkloadError(f"{count}: skipping them leaves no request; raise max_len")
            kept = self.take(np.flatnonzero(total <= max_len))
            kept.notes.append(f"{count} were skipped")
            return kept
        output = np.minimum(self.output_tokens, max_len - 1)
        prompt = np.minimum(self.prompt_tokens, max_len - output)
        lost = int(total.sum() - (prompt + output).sum())
        note = f"{count} were cut to it, by {lost} tokens in all"
        return replace(self, prompt_tokens=prompt, output_tokens=output, notes=[*self.notes, note])
