"""From a pool, its layer groups and a policy's knobs to tables and pools."""

from __future__ import annotations

import math

from allocators.base import Geometry, NeverFits, Unsupported, is_number, one_of
from allocators.layered import grouping
from allocators.layered.grouping import Spread
from allocators.layered.pools import CachedPools, OnePool, SplitPools
from allocators.layers import KEEPING_KINDS, WINDOW_KINDS, LayerGroup
from allocators.page_table import FreeQueue
from allocators.prefix import EVICTIONS, FREE_ORDERS, INDEXES, POOLS
from allocators.prefix.pool import BlockPool

GROUPS = ("hybrid", "uniform", "split")
#: of a windowed layer group: tokens for each token of the others (SGLang, `swa_full_tokens_ratio`)
WINDOW_TOKENS = 0.8
#: bytes of states for each byte of keys and values (SGLang, `mamba_full_memory_ratio`)
STATE_BYTES = 0.9


def check_knobs(groups: object, window_share: object, retention_tokens: object) -> None:
    """Raise ValueError for a value that no model would take."""
    one_of("groups", groups, GROUPS)
    if window_share is not None and not (is_number(window_share) and 0.0 < window_share < 1.0):
        raise ValueError(f"window_share must be null or between 0 and 1, got {window_share!r}")
    whole = isinstance(retention_tokens, int) and not isinstance(retention_tokens, bool)
    if retention_tokens is not None and not (whole and retention_tokens >= 0):
        raise ValueError(
            f"retention_tokens must be null or a whole number from 0, got {retention_tokens!r}"
        )


def spread_over(
    geometry: Geometry, groups: str, block_size: int, window_share: float | None
) -> tuple[Spread, list[int]]:
    """Return the tables of `groups`, and how many pages each pool has.

    Raises NeverFits where a pool would hold no page, Unsupported where the rule cannot serve these
    layer groups.
    """
    layer_groups = geometry.layer_groups
    if groups == "split":
        return _split(geometry, block_size, window_share)
    rule = grouping.uniform if groups == "uniform" else grouping.hybrid
    spread = rule(layer_groups, block_size)
    page_bytes = spread.tables[0].page_bytes
    pages = geometry.pool_bytes // page_bytes
    if not pages:
        raise NeverFits(
            f"the pool of {geometry.pool_bytes} bytes holds no page of {page_bytes} bytes"
        )
    return spread, [pages]


def make_pools(spread: Spread, pages: list[int], queue: type[BlockPool] | None) -> SplitPools:
    """Return the empty pools of a spread; `queue` keeps pages with keys (None: none has one)."""
    page_bytes = spread.page_bytes()
    if queue is not None:
        queues = [queue(count) for count in pages]
        return CachedPools(queues, pages, page_bytes, spread.pool_of())
    if len(pages) == 1:
        return OnePool(pages[0], page_bytes[0], len(spread.tables))
    blank = [FreeQueue(count) for count in pages]
    return SplitPools(blank, pages, page_bytes, spread.pool_of())


def caching_queue(
    spread: Spread,
    prefix_index: str,
    eviction: str,
    free_order: str,
    offload: bool,
    retention_tokens: int | None = None,
) -> type[BlockPool] | None:
    """Return the pool that a prefix index over these tables keeps its pages in; None without one.

    Raises ValueError for an unknown name and for an interval at which no hit ends, Unsupported for
    what layer groups do not have.
    """
    one_of("prefix_index", prefix_index, INDEXES)
    one_of("eviction", eviction, EVICTIONS)
    one_of("free_order", free_order, FREE_ORDERS)
    if offload:
        raise Unsupported("offload saves blocks of uniform models, not those of layer groups")
    if prefix_index == "none":
        return None
    if (prefix_index, eviction) != ("hash", "lru"):
        raise Unsupported(
            f"layer groups have prefix_index=hash with eviction=lru, as vLLM's hybrid manager, not "
            f"prefix_index={prefix_index} with eviction={eviction}"
        )
    check_index(spread, prefix_index)
    align = math.lcm(*(table.page_tokens for table in spread.tables))
    if retention_tokens is not None and retention_tokens % align:
        raise ValueError(
            f"retention_tokens must be a multiple of {align}, for hits end where a block of every "
            f"table does; got {retention_tokens}"
        )
    return POOLS[free_order]


def check_index(spread: Spread, prefix_index: str) -> None:
    """Raise Unsupported for an index that there is none of over these tables."""
    if prefix_index != "hash":
        raise Unsupported(f"layer groups have prefix_index=hash, not prefix_index={prefix_index}")
    kinds = {table.kind for table in spread.tables}
    if "state" in kinds:
        raise Unsupported(
            "a state holds all tokens up to now, so that none of a prefix is left to be hit: "
            "layers with a state need prefix_index=none"
        )
    if "cross" in kinds or any(table.before for table in spread.tables):
        raise Unsupported(
            "nothing tells whether two requests have the same encoder's tokens: layers that read "
            "them need prefix_index=none"
        )
    sizes = {table.page_tokens for table in spread.tables}
    if "chunked" in kinds and len(sizes) > 1:
        raise Unsupported(
            f"a hit on chunked layers needs pages of equally many tokens, not of {sorted(sizes)}"
        )


def _split(
    geometry: Geometry, block_size: int, window_share: float | None
) -> tuple[Spread, list[int]]:
    spread = grouping.split(geometry.layer_groups, block_size)
    shares = pool_shares(geometry, window_share)
    pages = [
        int(share * geometry.pool_bytes) // size
        for share, size in zip(shares, spread.page_bytes(), strict=True)
    ]
    for group, share, count in zip(geometry.layer_groups, shares, pages, strict=True):
        if not count:
            raise NeverFits(
                f"the {group.kind} layers' share of the pool, {share:.3g} of "
                f"{geometry.pool_bytes} bytes, holds no page"
            )
    return spread, pages


def pool_shares(geometry: Geometry, window_share: float | None) -> list[float]:
    """Return each layer group's share of the pool's bytes.

    `window_share` is that of all layer groups of which a sequence holds a bounded part (window,
    chunk, state, encoder), in proportion to what one holds at most there, as TensorRT-LLM weighs
    windows; the others have the rest in proportion to their bytes a token.  None: what SGLang
    takes without being told, `WINDOW_TOKENS` and `STATE_BYTES`.
    """
    groups = geometry.layer_groups
    kept = [group.slot_bytes if _keeps(group) else 0.0 for group in groups]
    bound = [0.0 if _keeps(group) else _most_bytes(group, geometry.max_len) for group in groups]
    if not any(kept) or not any(bound):
        if window_share is not None:
            raise Unsupported(
                "window_share divides the pool between layer groups that keep every token and "
                "others, and this model has but one of the two"
            )
        weights = kept if any(kept) else bound
        return [weight / sum(weights) for weight in weights]
    if window_share is None:
        return _sglang_shares(groups, bound)
    return [
        of * window_share / sum(bound) if of else keeps * (1 - window_share) / sum(kept)
        for keeps, of in zip(kept, bound, strict=True)
    ]


def _sglang_shares(groups: tuple[LayerGroup, ...], bound: list[float]) -> list[float]:
    weights = [0.0] * len(groups)
    for index, group in enumerate(groups):
        if _keeps(group):
            weights[index] = group.slot_bytes
        elif group.kind in WINDOW_KINDS:
            weights[index] = WINDOW_TOKENS * group.slot_bytes
    states = [i for i, group in enumerate(groups) if group.kind == "state"]
    encoders = [i for i, group in enumerate(groups) if group.kind == "cross"]
    for members, ratio in ((states, STATE_BYTES), (encoders, 1.0)):
        rest, most = sum(weights), sum(bound[i] for i in members)
        for index in members:
            weights[index] = ratio * rest * bound[index] / most
    return [weight / sum(weights) for weight in weights]


def _keeps(group: LayerGroup) -> bool:
    return group.kind in KEEPING_KINDS


def _most_bytes(group: LayerGroup, max_len: int) -> float:
    """Return the bytes that a sequence holds at most in a layer group that is bounded."""
    return group.slot_bytes * min(group.window or group.encoder_tokens or 1, max_len)
