"""Where the KV of a batch lies, in the one form that every kernel reads.

Position p of row i lies in the cache, seen as pages, at

    q = offset[i] + p:   page = table[i, q // page_tokens],   token = q % page_tokens.

A block table is that with offset 0.  A contiguous row is that with a page as long as the row's
whole range, so the same kernel arithmetic serves both and neither is copied.  Ranges whose pages
are not filled to the end (a virtual page-group that holds a whole number of tokens and a rest) are
pages with a stride of their own.

    BlockTable, page 4           Strided, flat cache             Strided, padded page-groups
    table [7, 2], offset 0       table [0], offset base          table [b, b+1, ..], offset base%t
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from allocators.base import BlockTable, IntArray, Layout, Strided


@dataclass(frozen=True, slots=True)
class HostRows:
    """What the host knows of `Rows`: reading it from the device would wait for all that it does."""

    starts: IntArray  # int64 [S + 1]
    lengths: IntArray  # int64 [S]
    first: IntArray  # int64 [S]; the slot of position 0 of a contiguous row
    within_page: bool  # some row begins behind the start of its page

    @property
    def queries(self) -> IntArray:
        """New tokens of each row, [S]."""
        return np.diff(self.starts)

    def within(self, window: int) -> HostRows:
        """As `Rows.within`."""
        behind = np.maximum(self.lengths - self.queries - (window - 1), 0)
        return replace(
            self,
            lengths=self.lengths - behind,
            first=self.first + behind,
            within_page=self.within_page or bool(behind.any()),
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """A layout placed on a device; make one per step with `place` and use it in every layer.

    `starts` are cumulative new tokens: queries starts[i]..starts[i + 1] belong to row i and are its
    last positions.  `contiguous` says that no row runs over the end of a page, `block_tokens` is
    the layout's own page size or None if it has no block table.
    """

    page_tokens: int
    block_tokens: int | None
    table: torch.Tensor  # int32 [S, W]
    offset: torch.Tensor  # int64 [S]
    lengths: torch.Tensor  # int32 [S]
    starts: torch.Tensor  # int32 [S + 1]
    max_length: int
    max_queries: int
    contiguous: bool
    #: None where the tensors are buffers whose numbers change (a captured pass)
    host: HostRows | None = None
    #: what a back end has derived from these rows, to use it again in the next layer
    derived: dict[Any, Any] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return self.lengths.shape[0]

    def within(self, window: int) -> Rows:
        """The same without the positions that lie behind the window of every query of their row.

        What is left begins anywhere in a page.
        """
        key = ("within", window)
        if key not in self.derived:
            behind = (self.lengths - self.starts.diff() - (window - 1)).clamp(min=0)
            self.derived[key] = replace(
                self,
                offset=self.offset + behind,
                lengths=self.lengths - behind,
                max_length=min(self.max_length, self.max_queries + window - 1),
                host=None if self.host is None else self.host.within(window),
                derived={},
            )
        return self.derived[key]


def place(
    layout: Layout | Rows,
    cache: torch.Tensor,
    query_lengths: Sequence[int] | IntArray | None = None,
) -> Rows:
    """Put `layout` on the device of `cache`, with `query_lengths` new tokens a row (default 1).

    The result fits every cache of the same shape and strides.  Raises `ValueError` if a row has
    fewer positions than new tokens, has no new token, or leaves the cache.
    """
    if isinstance(layout, Rows):
        return layout
    lengths = np.asarray(layout.lengths, dtype=np.int64)
    queries = np.ones_like(lengths)
    if query_lengths is not None:
        queries = np.asarray(query_lengths, dtype=np.int64)
    if queries.shape != lengths.shape:
        raise ValueError(f"{len(queries)} query lengths for {len(lengths)} rows")
    if ((queries < 1) | (queries > lengths)).any():
        raise ValueError(
            f"each row needs from 1 new token to its length, got {queries.tolist()} new tokens "
            f"for lengths {lengths.tolist()}"
        )
    if isinstance(layout, BlockTable):
        page, table, offset = _paged(layout, cache, lengths)
    else:
        page, table, offset = _strided(layout, cache, lengths)
    contiguous = isinstance(layout, Strided) and bool((offset + lengths <= page).all())
    device = cache.device
    starts = np.append(0, np.cumsum(queries))
    host = HostRows(
        starts=starts,
        lengths=lengths,
        first=np.asarray(layout.base) if isinstance(layout, Strided) else np.zeros_like(lengths),
        within_page=bool(offset.any()),
    )
    return Rows(
        page_tokens=page,
        block_tokens=layout.page_tokens if isinstance(layout, BlockTable) else None,
        table=torch.as_tensor(table.astype(np.int32), device=device),
        offset=torch.as_tensor(offset, device=device),
        lengths=torch.as_tensor(lengths.astype(np.int32), device=device),
        starts=torch.as_tensor(starts.astype(np.int32), device=device),
        max_length=int(lengths.max(initial=0)),
        max_queries=int(queries.max(initial=0)),
        contiguous=contiguous,
        host=host,
    )


def _paged(
    layout: BlockTable, cache: torch.Tensor, lengths: IntArray
) -> tuple[int, IntArray, IntArray]:
    page = layout.page_tokens
    pages = as_pages(cache, page).shape[0]
    # Entries behind a row's end are never read for values, but a kernel may load them.
    table = np.clip(np.asarray(layout.table, dtype=np.int64), 0, None)
    needed = -(-lengths // page)
    if (needed > table.shape[1]).any() or table.max(initial=0) >= pages:
        raise ValueError(f"a row leaves its block table or the cache of {pages} pages")
    return page, table, np.zeros_like(lengths)


def _strided(
    layout: Strided, cache: torch.Tensor, lengths: IntArray
) -> tuple[int, IntArray, IntArray]:
    view = as_pages(cache, None)
    pages, page = view.shape[:2]
    base = np.asarray(layout.base, dtype=np.int64)
    if (base < 0).any() or (base + lengths > pages * page).any():
        raise ValueError(f"a row leaves the cache of {pages * page} slots")
    offset = base % page
    width = int((-(-(offset + lengths) // page)).max(initial=1))
    table = np.minimum(base[:, None] // page + np.arange(width), pages - 1)
    return page, table, offset


def as_pages(cache: torch.Tensor, page_tokens: int | None) -> torch.Tensor:
    """View a cache as pages of `page_tokens`; None: as few pages as its strides allow.

    No data moves.  Raises `ValueError` if the cache's strides do not allow the view.
    """
    if cache.dim() not in (3, 4) or cache.stride(-1) != 1:
        raise ValueError(
            "a cache is [pages, page_tokens, kv_heads, head_dim] or [slots, kv_heads, head_dim] "
            f"with adjacent elements in a head, got {tuple(cache.shape)} {cache.stride()}"
        )
    if cache.dim() == 4:
        if page_tokens == cache.shape[1]:
            return cache
        if cache.shape[0] > 1 and cache.stride(0) != cache.shape[1] * cache.stride(1):
            if page_tokens is None:
                return cache
            raise ValueError(
                f"pages of {cache.shape[1]} tokens with a gap cannot be seen as {page_tokens}"
            )
        cache = cache.flatten(0, 1)
    if page_tokens is None:
        return cache.unsqueeze(0)
    whole = cache.shape[0] // page_tokens
    return cache[: whole * page_tokens].unflatten(0, (whole, page_tokens))


def new_slots(layout: Layout, query_lengths: Sequence[int] | IntArray) -> IntArray:
    """Return the slots of each row's last `query_lengths[i]` positions, concatenated, [T]."""
    lengths = np.asarray(layout.lengths)
    queries = np.asarray(query_lengths, dtype=np.int64)
    row = np.repeat(np.arange(len(lengths)), queries)
    first = np.cumsum(queries) - queries
    position = (lengths - queries)[row] + np.arange(len(row)) - first[row]
    if isinstance(layout, Strided):
        return np.asarray(layout.base)[row] + position
    page = layout.page_tokens
    return np.asarray(layout.table)[row, position // page] * page + position % page


def known(rows: Rows) -> HostRows:
    """Return what the host knows of rows that were placed, and not captured."""
    assert rows.host is not None, "a captured pass cannot go row by row"
    return rows.host
