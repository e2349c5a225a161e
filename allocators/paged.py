"""PagedAttention: fixed-size blocks, block tables, reference counts, copy-on-write.

Follows Kwon et al., SOSP 2023 (arXiv 2309.06180), sections 4.2 to 4.4: a block is taken only when
the last one is full, so that a sequence wastes less than one block; forked sequences share blocks,
and a write to a block with more than one holder copies that block first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from allocators.base import (
    EMPTY_GRANT,
    Allocator,
    BlockTable,
    Demand,
    Geometry,
    Grant,
    IntArray,
    NeverFits,
    Prompt,
    Usage,
    is_number,
)
from allocators.growth import bisect_headroom
from allocators.page_table import PageTable, ceil_div

#: bytes of one block-table entry on the device (a 32-bit block number)
ENTRY_BYTES = 4


class Paged(Allocator):
    """Blocks of `block_size` tokens; admission leaves the share `watermark` of them free."""

    block_tables: ClassVar[bool] = True

    def __init__(self, geometry: Geometry, *, block_size: int = 16, watermark: float = 0.0) -> None:
        # A bool is an int to Python; `block_size=true` in a YAML is a mistake all the same.
        if type(block_size) is not int or not 1 <= block_size <= 512:
            raise ValueError(f"block_size must be a whole number from 1 to 512, got {block_size!r}")
        if not is_number(watermark) or not 0.0 <= watermark < 1.0:
            raise ValueError(f"watermark must be at least 0 and below 1, got {watermark!r}")
        super().__init__(replace(geometry, page_tokens=block_size))
        num_blocks = geometry.capacity_tokens // block_size
        if num_blocks < 1:
            raise NeverFits(
                f"the pool of {geometry.capacity_tokens} tokens holds no block of {block_size}"
            )
        per_row = -(-geometry.max_len // block_size)
        self.pages = PageTable(geometry.max_seqs, per_row, num_blocks, block_size)
        self.watermark_blocks = int(watermark * num_blocks)

    # -- admission ---------------------------------------------------------------------------
    def admit(self, seqs: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        t, gang, private = self.geometry.page_tokens, len(seqs), demand.private_tokens
        blocks = -(-prompt.tokens // t)
        if private:
            shared = prompt.tokens // t
            blocks = shared + gang * (-(-(prompt.tokens + private) // t) - shared)
        if blocks > self.pages.num_pages:
            raise NeverFits(
                f"{blocks} blocks of {t} tokens are needed, the pool has {self.pages.num_pages}"
            )
        spare = self.watermark_blocks if self.active.any() else 0
        if blocks > len(self.pages.free) - spare:
            return None
        parent = seqs[:1]
        empty = np.zeros(1, dtype=np.int64)
        self.pages.extend(parent, self.pages.missing(parent, empty, prompt.tokens), empty)
        if gang > 1:
            self.pages.share(int(parent[0]), seqs[1:], -(-prompt.tokens // t))
        self.length[seqs] = prompt.tokens
        self.active[seqs] = True
        # The parent goes last and so keeps its partly filled block: it is where the prompt's KV will
        # be written, and what the others copy.
        return self.grow(np.roll(seqs, -1), private) if private else EMPTY_GRANT

    # -- growth ------------------------------------------------------------------------------
    def grow(self, seqs: IntArray, n: int = 1) -> Grant | None:
        lengths = self.length[seqs]
        missing = self.pages.missing(seqs, lengths, n)
        copiers = self.pages.to_copy(seqs, lengths)
        if int(missing.sum()) + len(copiers) > len(self.pages.free):
            return None
        copies, _ = self.pages.copy_on_write(seqs[copiers], lengths[copiers])
        self.pages.extend(seqs, missing, lengths)
        self.length[seqs] = lengths + n
        return Grant(copies=copies) if len(copies) else EMPTY_GRANT

    def headroom(self, seqs: IntArray) -> int:
        lengths = self.length[seqs]
        free = len(self.pages.free) - len(self.pages.to_copy(seqs, lengths))
        return bisect_headroom(
            lambda n: int(self.pages.missing(seqs, lengths, n).sum()) <= free,
            self.geometry.max_len - int(lengths.max()),
        )

    def quiet_steps(self, seqs: IntArray, at_most: int) -> int:
        lengths = self.length[seqs]
        if len(self.pages.to_copy(seqs, lengths)):
            return 0
        free = len(self.pages.free)
        return bisect_headroom(
            lambda n: int(self.pages.missing(seqs, lengths, n).sum()) <= free, at_most
        )

    def truncate(self, seq: int, n: int) -> Grant:
        self.length[seq] -= n
        self.pages.drop(seq, keep=-(-int(self.length[seq]) // self.geometry.page_tokens))
        return EMPTY_GRANT

    # -- sharing -----------------------------------------------------------------------------
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        self.pages.share(parent, children, int(self.pages.count[parent]))
        self.length[children] = self.length[parent]
        self.active[children] = True
        return EMPTY_GRANT

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        self.pages.reassign(rows, parents, self.pages.count[rows])
        return EMPTY_GRANT

    # -- release -----------------------------------------------------------------------------
    def release(self, seqs: IntArray) -> Grant:
        for seq in seqs.tolist():
            self.pages.drop(seq)
        self.length[seqs] = 0
        self.active[seqs] = False
        return EMPTY_GRANT

    # -- views -------------------------------------------------------------------------------
    def layout(self, seqs: IntArray) -> BlockTable:
        width = int(self.pages.count[seqs].max(initial=0))
        table = self.pages.table[seqs, :width]
        return BlockTable(self.geometry.page_tokens, table, self.length[seqs])

    def addresses(self, seq: int) -> IntArray:
        return self.pages.addresses(seq, int(self.length[seq]))

    def usage(self, seqs: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        t, per_token = self.geometry.page_tokens, self.geometry.bytes_per_token
        lengths = self.length[seqs]
        spare, later, to_come = self.pages.slack(seqs, lengths, finals, steps, elastic=True)
        held = self.pages.num_pages - len(self.pages.free) - to_come
        # Sequences that a static batch still holds after their end keep blocks nobody will read.
        all_live = len(seqs) == np.count_nonzero(self.active)
        live = held if all_live else self.pages.distinct_pages(seqs, lengths) - to_come
        token, reserved = (live * t - spare) * per_token, later * per_token
        in_use = held * t * per_token
        logical = int(self.pages.count[self.active].sum()) - to_come
        return Usage(
            token=token,
            reserved=reserved,
            internal=in_use - token - reserved,
            round_up=np.zeros_like(held),
            cached=np.zeros_like(held),
            free=self.geometry.capacity_bytes - in_use,
            pages=held,
            logical_pages=logical,
            metadata_bytes=logical * ENTRY_BYTES,
        )

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        free = len(self.pages.free)
        return self.pages.num_pages - free, 0, free

    def check(self) -> None:
        self.pages.check()
        expected = ceil_div(self.length, self.geometry.page_tokens)
        assert (self.pages.count == expected).all(), (
            "a row holds blocks it does not fill"
        )
        assert (self.length[~self.active] == 0).all(), "an ended sequence has a length"
