"""How layer groups are spread over page tables: three rules, and the tables that come of them.

`hybrid` is the rule of vLLM's hybrid KV cache manager (vLLM 0.33.0, `kv_cache_planning.py`; its
design document "Hybrid KV Cache Manager"): every table has the same number of layers, so that the
pages of all are equally large and come out of one pool.

    48 sliding + 12 full layers      tables of 12 layers: full, sliding x 4
    25 sliding + 24 full             25 < 1.5 x 24: tables of 25 layers, one of them padded
    pages of one layer differ        smaller ones get more tokens a page, or are padded
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from allocators.base import Unsupported
from allocators.layered.shapes import TableShape
from allocators.layers import KEEPING_KINDS, WINDOW_KINDS, IntArray, LayerGroup

#: up to this many times the fewest layers of a kind the most of them are a table's
WIDEN_BELOW = 1.5


@dataclass(frozen=True, slots=True)
class Spread:
    """Tables, and the layer groups that they refer to, which may be finer than the model's."""

    tables: list[TableShape]
    layer_groups: tuple[LayerGroup, ...]

    def pool_of(self) -> IntArray:
        """Return the pool of each table, [tables]."""
        return np.array([table.pool for table in self.tables], dtype=np.int64)

    def page_bytes(self) -> list[int]:
        """Return the bytes of a page of each pool."""
        of = {table.pool: table.page_bytes for table in self.tables}
        return [of[pool] for pool in range(len(of))]


def uniform(layer_groups: tuple[LayerGroup, ...], block_size: int) -> Spread:
    """Keep each token in each layer: one table, as with hybrid management off.

    An encoder's tokens stand before the text, in pages of their own, and they too have a slot in
    every layer.  Raises Unsupported for layers with a state, which keep no tokens.
    """
    if any(group.kind == "state" for group in layer_groups):
        raise Unsupported(
            "groups=uniform keeps every token in every layer, and layers with a state keep none; "
            "use groups=hybrid or groups=split"
        )
    slot_bytes = sum(group.slot_bytes for group in layer_groups)
    encoder_pages = -(-max(group.encoder_tokens for group in layer_groups) // block_size)
    return Spread(
        [
            TableShape(
                members=tuple(range(len(layer_groups))),
                kind="full",
                page_tokens=block_size,
                page_bytes=slot_bytes * block_size,
                before=encoder_pages * block_size,
            )
        ],
        layer_groups,
    )


def split(layer_groups: tuple[LayerGroup, ...], block_size: int) -> Spread:
    """Give each layer group its own table and a page of just its bytes.

    Each has a pool of its own: which share of the memory that is, `build` says.
    """
    tables = []
    for index, group in enumerate(layer_groups):
        tokens = 1 if group.kind == "state" else block_size
        tables.append(
            TableShape(
                members=(index,),
                kind=group.kind,
                page_tokens=tokens,
                page_bytes=tokens * group.slot_bytes,
                window=group.window,
                encoder_tokens=group.encoder_tokens,
                pool=index,
            )
        )
    return Spread(tables, layer_groups)


def hybrid(layer_groups: tuple[LayerGroup, ...], block_size: int) -> Spread:
    """Spread layer groups over tables of equally many layers and pages of equally many bytes.

    Raises Unsupported where no page size serves all.
    """
    first = layer_groups[0]
    if all(group.kind in KEEPING_KINDS for group in layer_groups) or (
        first.kind in WINDOW_KINDS
        and all((g.kind, g.window) == (first.kind, first.window) for g in layer_groups)
    ):
        return _one_table(layer_groups, block_size)
    buckets = _merged(layer_groups)
    tokens, page_bytes = _pages_of_a_layer(buckets, block_size)
    counts = [bucket.layers for bucket in buckets]
    fewest, most = min(counts), max(counts)
    wide = most if most < WIDEN_BELOW * fewest else fewest
    tables, finer = [], []
    for bucket, page_tokens in zip(buckets, tokens, strict=True):
        layer_bytes = bucket.slot_bytes // bucket.layers
        parts = -(-bucket.layers // wide)
        for part in range(parts):
            layers = len(range(part, bucket.layers, parts))
            tables.append(
                TableShape(
                    members=(len(finer),),
                    kind=bucket.kind,
                    page_tokens=page_tokens,
                    page_bytes=wide * page_bytes,
                    window=bucket.window,
                    encoder_tokens=bucket.encoder_tokens,
                )
            )
            finer.append(replace(bucket, layers=layers, slot_bytes=layers * layer_bytes))
    return Spread(tables, tuple(finer))


def _one_table(layer_groups: tuple[LayerGroup, ...], block_size: int) -> Spread:
    slot_bytes = sum(group.slot_bytes for group in layer_groups)
    first, members = layer_groups[0], tuple(range(len(layer_groups)))
    kind = first.kind if first.kind in WINDOW_KINDS else "full"
    page_bytes = slot_bytes * block_size
    table = TableShape(members, kind, block_size, page_bytes, window=first.window)
    return Spread([table], layer_groups)


def _merged(layer_groups: tuple[LayerGroup, ...]) -> list[LayerGroup]:
    """Put layer groups that keep the same, layer by layer, into one; in order of appearance."""
    merged: dict[tuple[object, ...], LayerGroup] = {}
    for group in layer_groups:
        if group.slot_bytes % group.layers:
            raise Unsupported(
                f"groups=hybrid needs layers of equal bytes in a layer group, but {group.layers} "
                f"{group.kind} layers have {group.slot_bytes} bytes a slot"
            )
        a_layer = group.slot_bytes // group.layers
        key = (group.kind, group.window, group.encoder_tokens, a_layer)
        before = merged.get(key)
        layers = group.layers + (before.layers if before else 0)
        merged[key] = replace(group, layers=layers, slot_bytes=layers * a_layer)
    return list(merged.values())


def _pages_of_a_layer(buckets: list[LayerGroup], block_size: int) -> tuple[list[int], int]:
    """Return the tokens of a page of each bucket, and the bytes of a page of one layer.

    A page of tokens is at least as large as a state: it gets more blocks until it is.  A smaller
    page gets as many times more tokens as it fits into the largest, or is padded to it.
    """
    layer_bytes = [bucket.slot_bytes // bucket.layers for bucket in buckets]
    states = [b for b, of in zip(layer_bytes, buckets, strict=True) if of.kind == "state"]
    others = [b for b, of in zip(layer_bytes, buckets, strict=True) if of.kind != "state"]
    largest_state = max(states, default=0)
    if not others:
        return [1] * len(buckets), largest_state
    blocks = max(1, -(-largest_state // (max(others) * block_size)))
    base = blocks * block_size
    page_bytes = max(max(others) * base, largest_state)
    tokens = []
    for bucket, a_layer in zip(buckets, layer_bytes, strict=True):
        if bucket.kind == "state":
            tokens.append(1)
        elif page_bytes % (a_layer * base) == 0:
            tokens.append(page_bytes // a_layer)
        elif bucket.kind == "latent":
            raise Unsupported(
                f"groups=hybrid makes pages equal by whole blocks, but {page_bytes} bytes are no "
                f"multiple of a block of {a_layer * base} bytes of the latent layers"
            )
        else:
            tokens.append(base)
    return tokens, page_bytes
