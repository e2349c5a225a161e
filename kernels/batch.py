"""What one call of attention computes, in the form in which every back end takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from kernels.rows import Rows, as_pages


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries, the KV they read in place, and where the result goes.

    `keys` and `values` may be strided over pages, tokens and heads; a head's numbers are adjacent.
    """

    q: torch.Tensor  # [T, query_heads, head_dim]
    keys: torch.Tensor  # [pages, page_tokens, kv_heads, head_dim]
    values: torch.Tensor  # as keys
    rows: Rows
    scale: float
    out: torch.Tensor  # as q
    #: a query at position p reads positions p - window + 1 to p only; None: all up to p
    window: int | None = None
    #: logits that take part in the softmax without a value, [query_heads]
    sinks: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        q: torch.Tensor,
        k_cache: torch.Tensor,
        v_cache: torch.Tensor,
        rows: Rows,
        scale: float,
        out: torch.Tensor,
        window: int | None = None,
        sinks: torch.Tensor | None = None,
    ) -> Batch:
        """View caches, paged or flat, as the pages of `rows`; nothing is copied."""
        page = rows.page_tokens
        keys, values = as_pages(k_cache, page), as_pages(v_cache, page)
        return cls(q, keys, values, rows, scale, out, window, sinks)

    def narrowed(self) -> Batch:
        """The same without the positions that no query sees; a decode then needs no window."""
        if self.window is None:
            return self
        rows = self.rows.within(self.window)
        return replace(self, rows=rows, window=None if rows.max_queries == 1 else self.window)

    @property
    def kv_heads(self) -> int:
        return self.keys.shape[2]

    @property
    def group(self) -> int:
        """Query heads that read one KV head."""
        return self.q.shape[1] // self.kv_heads
