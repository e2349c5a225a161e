"""Where a token's numbers lie in a virtual range, for each layout and packing.

There are 2 x layers ranges (`per_layer`: keys and values of each layer) or two (`sliced`: keys and
values of all layers, a token's layers side by side).  A range has `rows` rows of `columns` pages;
a page-group is the same page of every range.  A page holds a whole number of tokens and perhaps a
rest that is too small for one more:

    padded   | t0 t1 t2 rest | t3 t4 t5 rest |     the rest is left empty: pages can be shared
    dense    | t0 t1 t2 t3'  | t3" t4 t5 ..  |     tokens run over page ends, as in vAttention's own
                                                   tensors: a row is one contiguous range

With dense packing, position `page_tokens` begins in the first page.  A page that is full by the
allocator's count is therefore still written to, so it must not be shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from allocators.base import Allocator, Unsupported

PACKINGS = ("padded", "dense")


@dataclass(frozen=True, slots=True)
class VirtualShape:
    """Counts and sizes of one virtual backing; see the module docstring."""

    rows: int
    columns: int
    num_pages: int
    page_bytes: int
    page_tokens: int
    layers: int
    kv_heads: int
    head_dim: int
    dtype_bytes: int
    sliced: bool
    packing: str = "padded"

    @classmethod
    def of(cls, allocator: Allocator, packing: str = "padded") -> VirtualShape:
        """Read the shape off an allocator.  Raises `Unsupported` for what cannot be mapped."""
        if packing not in PACKINGS:
            raise ValueError(f"packing must be one of {', '.join(PACKINGS)}, got {packing!r}")
        g = allocator.geometry
        sliced = allocator.pages_per_group != 2 * g.layers
        if sliced and allocator.pages_per_group != 2:
            raise Unsupported(
                f"a page-group of {allocator.pages_per_group} pages is neither 2 x layers nor 2"
            )
        shape = cls(
            rows=g.max_seqs,
            columns=-(-g.max_len // g.page_tokens),
            num_pages=sum(allocator.balance()),
            page_bytes=allocator.page_bytes,
            page_tokens=g.page_tokens,
            layers=g.layers,
            kv_heads=g.kv_heads,
            head_dim=g.head_dim,
            dtype_bytes=g.dtype_bytes,
            sliced=sliced,
            packing=packing,
        )
        if shape.rest_bytes < 0:
            raise Unsupported(f"{g.page_tokens} tokens do not fit a page of {shape.page_bytes}")
        if packing == "dense" and shape.rest_bytes and getattr(allocator, "alias", True):
            raise Unsupported("dense packing needs sharing=copy: tokens run over page ends")
        return shape

    @property
    def num_ranges(self) -> int:
        """Ranges, and pages of a page-group."""
        return 2 if self.sliced else 2 * self.layers

    @property
    def range_bytes(self) -> int:
        return self.rows * self.columns * self.page_bytes

    @property
    def group_bytes(self) -> int:
        return self.num_ranges * self.page_bytes

    @property
    def token_numbers(self) -> int:
        """Numbers of one token in one range, so the stride from a token to the next."""
        return self.kv_heads * self.head_dim * (self.layers if self.sliced else 1)

    @property
    def page_numbers(self) -> int:
        return self.page_bytes // self.dtype_bytes

    @property
    def rest_bytes(self) -> int:
        return self.page_bytes - self.page_tokens * self.token_numbers * self.dtype_bytes

    @property
    def whole_rows(self) -> bool:
        """Whether a row is one contiguous range of tokens."""
        return self.packing == "dense" or self.rest_bytes == 0

    def cache(self, ranges: list[torch.Tensor], layer: int, value: bool) -> torch.Tensor:
        """View the keys or values of a layer in flat ranges.

        [rows, row_tokens, kv_heads, head_dim] if rows are whole, else
        [rows x columns, page_tokens, kv_heads, head_dim] with a gap behind each page.
        """
        whole = ranges[int(value) if self.sliced else 2 * layer + int(value)]
        start = layer * self.kv_heads * self.head_dim if self.sliced else 0
        pages, tokens, step = self.rows * self.columns, self.page_tokens, self.page_numbers
        if self.whole_rows:
            pages, tokens, step = self.rows, self.columns * tokens, self.columns * step
        return whole.as_strided(
            (pages, tokens, self.kv_heads, self.head_dim),
            (step, self.token_numbers, self.head_dim, 1),
            start,
        )

    def pages(self, whole: torch.Tensor) -> torch.Tensor:
        """View a range as pages of tokens of all its layers, [pages, page_tokens, 1, numbers]."""
        return whole.as_strided(
            (self.rows * self.columns, self.page_tokens, 1, self.token_numbers),
            (self.page_numbers, self.token_numbers, self.token_numbers, 1),
        )

    def rests(self, whole: torch.Tensor) -> torch.Tensor:
        """View what lies behind the last whole token of each page, [pages, 1, 1, numbers]."""
        rest = self.rest_bytes // self.dtype_bytes
        return whole.as_strided(
            (self.rows * self.columns, 1, 1, rest),
            (self.page_numbers, rest, rest, 1),
            self.page_numbers - rest,
        )
