"""Jenga: small pages of each layer group, carved from large pages of their least common multiple.

Follows Zhang et al., SOSP 2025 (arXiv 2503.18292), section 4: see `jenga_pools`.  Tables, windows
and admission are those of `LayeredPaged`, so that the two differ in the pool alone: there pages are
made equal (by spreading layers over tables, by more tokens a page, by padding), here each has the
bytes of its own layer group and the pool makes up for the difference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from allocators.base import Allocator, Geometry, Grant, IntArray, NeverFits, one_of
from allocators.knobs import check_blocks
from allocators.layered import grouping
from allocators.layered.build import check_index
from allocators.layered.grouping import Spread
from allocators.layered.jenga_cache import CachedLargePages
from allocators.layered.jenga_pools import LargePages
from allocators.layered.paged import LayeredPaged
from allocators.layered.prefix import HashLayerIndex
from allocators.paged import Paged
from allocators.prefix import INDEXES


class Jenga(LayeredPaged):
    """Small pages of `block_size` tokens; admission leaves the share `watermark` of large ones.

    `request_aware`: a sequence fills large pages of its own, so that they become free whole when it
    ends; else all fill them together, so that fewer are begun.  `prefix_index=hash`: what nobody
    holds may be hit until it is used for something else (`jenga_cache`).
    """

    hash_index = HashLayerIndex

    @classmethod
    def of(
        cls,
        geometry: Geometry,
        *,
        block_size: int = 16,
        watermark: float = 0.0,
        request_aware: bool = True,
        prefix_index: str = "none",
        **knobs: Any,
    ) -> Allocator:
        """Return the policy; of a uniform model all pages are alike, so that it is `Paged`."""
        if not isinstance(request_aware, bool):
            raise ValueError(f"request_aware must be true or false, got {request_aware!r}")
        if cls is not Jenga:
            cls.require_layer_groups(geometry)  # `Paged` would not have what the class changes
        if not geometry.layer_groups:
            blocks = {"block_size": block_size, "watermark": watermark}
            return Paged(geometry, prefix_index=prefix_index, **blocks, **knobs)
        check_blocks(block_size, watermark, False)
        one_of("prefix_index", prefix_index, INDEXES)
        if knobs:
            raise TypeError(f"Jenga has no {', '.join(knobs)} for models with layer groups")
        spread = grouping.split(geometry.layer_groups, block_size)
        of_pages: type[LargePages] = LargePages
        if prefix_index != "none":
            check_index(spread, prefix_index)
            of_pages = CachedLargePages
        page_bytes = [table.page_bytes for table in spread.tables]
        pools = of_pages(geometry.pool_bytes, page_bytes, request_aware)
        if not pools.num_large:
            raise NeverFits(
                f"the pool of {geometry.pool_bytes} bytes holds no large page of "
                f"{pools.large_bytes} bytes, the least common multiple of pages of "
                f"{', '.join(map(str, pools.page_bytes.tolist()))}"
            )
        return cls(geometry, spread, pools, watermark=watermark)

    def __init__(
        self, geometry: Geometry, spread: Spread, pools: LargePages, *, watermark: float
    ) -> None:
        super().__init__(geometry, spread, pools)
        self.large = pools
        self._watermark = np.array([int(watermark * pools.num_large)])
        self._unit = math.gcd(*pools.page_bytes.tolist())

    # -- what fits ---------------------------------------------------------------------------
    def _never(self, pages: IntArray) -> str:
        large = self.large.large_needed(pages.tolist(), [0] * len(pages))
        return (
            f"{large} large pages of {self.large.large_bytes} bytes are needed, the pool has "
            f"{self.large.num_large}"
        )

    # -- release -----------------------------------------------------------------------------
    def release(self, rows: IntArray) -> Grant:
        grant = super().release(rows)
        self.large.left(rows)
        return grant

    # -- checks ------------------------------------------------------------------------------
    def balance(self) -> tuple[int, int, int]:
        """Return bytes, in the greatest common divisor of all small pages'."""
        large, none = self.large, np.zeros((1, len(self.large.sizes)), dtype=np.int64)
        used = int(large.page_bytes @ np.array(large.used)) // self._unit
        cached = int((large.cached_before(none) @ large.page_bytes).sum()) // self._unit
        return used, cached, large.num_large * large.large_bytes // self._unit - used - cached
