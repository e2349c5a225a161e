"""A trace as the blocks that each prompt consists of."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from allocators.base import IntArray
from harness.errors import ConfigError
from workloads.requests import RequestTable


@dataclass(frozen=True, slots=True)
class BlockTrace:
    """Prompt blocks in the order of arrival; request r has blocks[starts[r] : starts[r + 1]].

    `blocks` are numbers from 0 that stand for a block and all before it; `distinct` counts them.
    A request that knows no full block has none.
    """

    blocks: IntArray  # [blocks]
    starts: IntArray  # [requests + 1]
    distinct: int
    block_tokens: int

    def requests(self) -> list[list[int]]:
        """Return the blocks of each request."""
        blocks, starts = self.blocks.tolist(), self.starts.tolist()
        return [blocks[a:b] for a, b in pairwise(starts)]


def block_trace(table: RequestTable, block_tokens: int | None) -> BlockTrace:
    """Cut the prompts of `table` into blocks of `block_tokens` tokens (None: the trace's own).

    The hash_ids of a trace are taken as they are, the last of a prompt also where it stands for a
    block that is partly filled, as in the Mooncake trace.  Real token ids are cut into full
    blocks.  Raises ConfigError if the trace says nothing about its tokens, or in blocks that
    neither divide `block_tokens` nor are a multiple of it, or has a block twice in one prompt.
    """
    if table.hash_ids is not None:
        ids, size = _resized(table.hash_ids, table.hash_block_tokens, block_tokens)
    elif table.token_ids is not None:
        from allocators.prefix.keys import block_keys

        size = block_tokens or 16
        ids = [np.array(block_keys(x, size).first, dtype=np.uint64) for x in table.token_ids]
    else:
        raise ConfigError(
            "workload.path: the trace has neither hash_ids nor token ids, so nothing is known of "
            "what its prompts share"
        )
    counts = np.array([len(x) for x in ids], dtype=np.int64)
    if not counts.sum():
        raise ConfigError(f"block_tokens={size}: no prompt of the trace fills a block")
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    names, blocks = np.unique(np.concatenate(ids), return_inverse=True)
    request = np.repeat(np.arange(len(ids)), counts)
    order = np.lexsort((blocks, request))
    again = (np.diff(request[order]) == 0) & (np.diff(blocks[order]) == 0)
    if again.any():
        name = table.name(int(request[order][:-1][again][0]))
        raise ConfigError(
            f"workload.path: request {name!r} has a hash id twice; an id stands for its block and "
            "all before it, so it can occur once in a prompt"
        )
    return BlockTrace(blocks.astype(np.int64), starts, len(names), size)


def _resized(
    hash_ids: list[IntArray], own_tokens: int, block_tokens: int | None
) -> tuple[list[IntArray], int]:
    """Regroup or split a trace's blocks; an id stands for the prompt up to its block's end."""
    size = block_tokens or own_tokens
    if size == own_tokens:
        return hash_ids, size
    if size % own_tokens == 0:
        group = size // own_tokens
        return [ids[group - 1 :: group] for ids in hash_ids], size
    if own_tokens % size == 0:
        parts = own_tokens // size
        offsets = np.arange(parts)
        return [(ids[:, None] * parts + offsets).reshape(-1) for ids in hash_ids], size
    raise ConfigError(
        f"block_tokens={size} neither divides the trace's own {own_tokens} tokens a block nor is "
        "a multiple of it"
    )
