"""Rows collected by a reader, turned into a RequestTable by the same rules for every format.

- A prompt of 0 tokens cannot be served: skipped, and counted in the notes.
- An output of 0 tokens is raised to 1, since serving a prompt yields a token; counted too.
- Rows out of time order are sorted, equal times keeping their order; counted too.
- Times start from the first request's.
- Where only the first requests are `wanted`, a recording in time order by its format (azure,
  burstgpt, mooncake, bailian) and a list without times are read up to the last of them, and what
  follows is unchecked. If those so far were out of order after all, the whole file is read, and so
  are a user's own lists with times: their earliest requests may be anywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from workloads.errors import WorkloadError
from workloads.formats.source import MAX_HASH_ID, MAX_IDENTITIES, refuse
from workloads.requests import IntArray, RequestTable


@dataclass
class Rows:
    """One list a column; times in seconds on any clock. Optional columns are filled or empty."""

    path: str | Path
    wanted: int | None = None  # how many requests are asked for; None: all
    time_s: list[float] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    token_ids: list[IntArray] = field(default_factory=list)
    hash_ids: list[IntArray] = field(default_factory=list)
    after: list[int] = field(default_factory=list)  # the row that must end first, or -1
    think_s: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # note -> requests it is about
    notes: list[str] = field(default_factory=list)

    def add(self, prompt: int, output: int) -> bool:
        """Add the lengths of a request; False if it is left out, with all its other columns."""
        if prompt == 0:
            self.counts["requests skipped, with a prompt of 0 tokens"] += 1
            return False
        if output == 0:
            self.counts["requests given 1 output token instead of 0"] += 1
        self.prompt.append(prompt)
        self.output.append(max(output, 1))
        return True

    def enough(self) -> bool:
        """Whether a reader of lines may stop; asked when a row has all its columns."""
        if len(self.prompt) != self.wanted:
            return False
        return all(a <= b for a, b in pairwise(self.time_s))

    def table(self, hash_block_tokens: int = 0, in_order: bool = True) -> RequestTable:
        """The finished table, in time order. Raises WorkloadError if no request is left.

        `in_order`: the format is in time order by itself, so that sorting deserves a note.
        """
        notes = [*self.notes, *(f"{self.path}: {what}: {n}" for what, n in self.counts.items())]
        if not self.prompt:
            raise WorkloadError("; ".join([f"{self.path}: no request in the file", *notes]))
        time_s = np.array(self.time_s or np.zeros(len(self.prompt)), dtype=np.float64)
        order = np.argsort(time_s, kind="stable")
        moved = int((np.diff(time_s) < 0).sum())
        if moved and in_order:
            notes.append(f"{self.path}: sorted by time; earlier than the one before: {moved}")
        table = RequestTable(
            arrival_s=time_s - time_s.min(),
            prompt_tokens=np.array(self.prompt, dtype=np.int64),
            output_tokens=np.array(self.output, dtype=np.int64),
            ids=self.ids or None,
            token_ids=self.token_ids or None,
            hash_ids=self.hash_ids or None,
            hash_block_tokens=hash_block_tokens if self.hash_ids else 0,
            timed=bool(self.time_s),
            notes=notes,
        )
        if moved:
            table = table.take(order)
        if self.after:
            # Rows are now in time order, and so after those that they depend on.
            place = np.append(np.argsort(order), -1)
            table = replace(
                table,
                after=place[np.array(self.after, dtype=np.int64)[order]],
                think_s=np.array(self.think_s, dtype=np.float64)[order],
            )
        return table


def whole_ids(path: str | Path, line: int | str, name: str, value: object) -> IntArray:
    """`value` as int64[k] of identities >= 0. Raises unless it is a list of such integers."""
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        refuse(path, line, f"{name} is not a list of whole numbers")
    if value and not (min(value) >= 0 and max(value) <= MAX_HASH_ID):
        refuse(path, line, f"{name} holds a number outside 0..{MAX_HASH_ID}")
    return np.array(value, dtype=np.int64)


def block_ids(
    rows: Rows, line: int | str, value: object, prompt: int, block_tokens: int
) -> IntArray:
    """A request's hash_ids; ids beyond its prompt are dropped and counted."""
    ids = whole_ids(rows.path, line, "hash_ids", value)
    most = MAX_IDENTITIES // block_tokens - 1
    if len(ids) and ids.max() > most:
        refuse(
            rows.path,
            line,
            f"hash_ids holds {ids.max()}; expected 0..{most} in blocks of {block_tokens} tokens",
        )
    filled = -(-prompt // block_tokens)
    if len(ids) > filled:
        rows.counts["requests with more hash_ids than prompt blocks, the rest ignored"] += 1
        return ids[:filled]
    return ids
