"""Where a token's numbers lie in a virtual tensor, for each layout and packing.

There are 2 x layers tensors (`per_layer`: keys and values of each layer) or two (`sliced`: keys and
values of all layers, a token's layers side by side).  A tensor has the pages of each virtual range
of the allocator, one range after the other; a page-group is the same page of every tensor.  A page
holds a whole number of tokens and perhaps a rest that is too small for one more:

    padded   | t0 t1 t2 rest | t3 t4 t5 rest |     the rest is left empty: pages can be shared
    dense    | t0 t1 t2 t3'  | t3" t4 t5 ..  |     tokens run over page ends, as in vAttention's own
                                                   tensors: a range is contiguous in memory

With dense packing, position `page_tokens` begins in the first page.  A page that is full by the
allocator's count is therefore still written to, so it must not be shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from allocators.base import Allocator, Unsupported, one_of

PACKINGS = ("padded", "dense")


@dataclass(frozen=True, slots=True)
class VirtualShape:
    """Counts and sizes of one virtual backing; see the module docstring."""

    num_ranges: int
    pages_per_range: int
    range_tokens: int  # from one virtual range to the next
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
        one_of("packing", packing, PACKINGS)
        g = allocator.geometry
        sliced = allocator.pages_per_group != 2 * g.layers
        if sliced and allocator.pages_per_group != 2:
            raise Unsupported(
                f"a page-group of {allocator.pages_per_group} pages is neither 2 x layers nor 2"
            )
        shape = cls(
            num_ranges=g.max_seqs,
            pages_per_range=allocator.range_pages,
            range_tokens=allocator.range_tokens,
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
        if packing == "padded" and shape.pages_per_range * g.page_tokens < g.max_len:
            raise Unsupported(
                f"{shape.pages_per_range} page-groups hold {g.max_len} tokens only if tokens run "
                "over page ends: use packing=dense, or sharing=alias"
            )
        if packing == "dense" and shape.rest_bytes and allocator.alias:
            raise Unsupported("dense packing needs sharing=copy: tokens run over page ends")
        return shape

    @property
    def num_tensors(self) -> int:
        """Virtual tensors, and pages of a page-group."""
        return 2 if self.sliced else 2 * self.layers

    @property
    def places(self) -> int:
        """Pages of one tensor, and places at which a page-group may be mapped."""
        return self.num_ranges * self.pages_per_range

    @property
    def tensor_bytes(self) -> int:
        """Bytes of addresses that one tensor reserves."""
        return self.places * self.page_bytes

    @property
    def page_group_bytes(self) -> int:
        return self.num_tensors * self.page_bytes

    @property
    def token_numbers(self) -> int:
        """Numbers of one token in one tensor, so the stride from a token to the next."""
        return self.kv_heads * self.head_dim * (self.layers if self.sliced else 1)

    @property
    def page_numbers(self) -> int:
        return self.page_bytes // self.dtype_bytes

    @property
    def rest_bytes(self) -> int:
        return self.page_bytes - self.page_tokens * self.token_numbers * self.dtype_bytes

    @property
    def whole_ranges(self) -> bool:
        """Whether the tokens of a range are contiguous in memory."""
        return self.packing == "dense" or self.rest_bytes == 0

    def cache(self, tensors: list[torch.Tensor], layer: int, value: bool) -> torch.Tensor:
        """View the keys or values of a layer in flat tensors.

        [ranges, range_tokens, kv_heads, head_dim] if ranges are whole, else
        [places, page_tokens, kv_heads, head_dim] with a gap behind each page.
        """
        whole = tensors[int(value) if self.sliced else 2 * layer + int(value)]
        start = layer * self.kv_heads * self.head_dim if self.sliced else 0
        pages, tokens, step = self.places, self.page_tokens, self.page_numbers
        if self.whole_ranges:
            step *= self.pages_per_range
            pages, tokens = self.num_ranges, self.range_tokens
        return whole.as_strided(
            (pages, tokens, self.kv_heads, self.head_dim),
            (step, self.token_numbers, self.head_dim, 1),
            start,
        )

    def pages(self, whole: torch.Tensor) -> torch.Tensor:
        """View a tensor as pages of tokens of all its layers, [pages, page_tokens, 1, numbers]."""
        return whole.as_strided(
            (self.places, self.page_tokens, 1, self.token_numbers),
            (self.page_numbers, self.token_numbers, self.token_numbers, 1),
        )

    def rests(self, whole: torch.Tensor) -> torch.Tensor:
        """View what lies behind the last whole token of each page, [pages, 1, 1, numbers]."""
        rest = self.rest_bytes // self.dtype_bytes
        return whole.as_strided(
            (self.places, 1, 1, rest),
            (self.page_numbers, rest, rest, 1),
            self.page_numbers - rest,
        )
