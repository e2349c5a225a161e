"""LRU hits at every capacity from one pass: stack distances (Mattson et al., 1970).

An LRU cache of C blocks holds exactly the C blocks touched last, whatever C is.  So a block is in
it when a request arrives if and only if its distance, the number of distinct blocks touched
since its own last touch, itself included, is at most C.  A hit counts only in the leading run of
a prompt, so block i counts for those C that reach the largest distance among blocks 0..i.

Let p be the time of the block's last touch, and prev[j] that of the block touched at time j
before j (-1: never).  Of the blocks touched after p and before the request at time s, count the
first touch of each: those with prev[j] < p, or equal for the block itself.  All touches up to p
have prev[j] < p, so

    distance = #{j < s: prev[j] < p} - p

which is a rank among earlier values, counted for all touches at once by a merge sort in NumPy.
A prompt that begins as an earlier one did has runs of blocks whose last touches followed each
other too.  No two touches have one prev, but for -1, so such a run lies below or above any other as
a whole, and runs are sorted, with their lengths as weights: O(r log r) for r runs.
"""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from harness.hitcurve.trace import BlockTrace

NEVER = np.iinfo(np.int64).max


def lru_hits(trace: BlockTrace, capacities: IntArray, deepest_first: bool) -> IntArray:
    """Return how many blocks hit in LRU caches of `capacities` blocks, int64[capacities].

    A request's blocks are touched in the order of its prompt, or from its end.
    """
    needed = np.sort(needed_blocks(trace, deepest_first))
    return np.searchsorted(needed, capacities, side="right")


def needed_blocks(trace: BlockTrace, deepest_first: bool) -> IntArray:
    """Return the smallest capacity at which each block is a hit, int64[blocks]; NEVER if none."""
    distance = stack_distances(trace, deepest_first)
    # The running maximum starts anew with each request: lift each above all before it.
    request = np.repeat(np.arange(len(trace.starts) - 1), np.diff(trace.starts))
    step = len(distance) + 2
    lifted = np.minimum(distance, step - 1) + request * step
    most = np.maximum.accumulate(lifted) - request * step
    return np.where(most == step - 1, NEVER, most)


def stack_distances(trace: BlockTrace, deepest_first: bool) -> IntArray:
    """Return each block's distance when its request arrives, int64[blocks]; NEVER at first sight.

    Raises ValueError if a block occurs twice in one request.
    """
    blocks, starts = trace.blocks, trace.starts
    n = len(blocks)
    request = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    time = np.arange(n)
    if deepest_first:
        time = starts[request] + starts[request + 1] - 1 - time
    touched = np.empty(n, dtype=np.int64)
    touched[time] = blocks
    # Touches of one block stand together, in the order of time.
    order = np.argsort(touched, kind="stable")
    again = touched[order[1:]] == touched[order[:-1]]
    prev = np.full(n, -1, dtype=np.int64)
    prev[order[1:][again]] = order[:-1][again]
    prev = prev[time]
    if (prev >= starts[request]).any():
        raise ValueError("a block occurs twice in one request")
    # Within a request none may count another: put them in descending order of prev.
    arranged = np.lexsort((-prev, request))
    rank = np.empty(n, dtype=np.int64)
    rank[arranged] = _ranks(prev[arranged])
    return np.where(prev < 0, NEVER, rank - prev)


def _ranks(prev: IntArray) -> IntArray:
    """Return how many earlier entries are smaller than each, int64[n]; only -1 occurs twice."""
    before, after = prev[:-1], prev[1:]
    goes_on = np.where(before < 0, after < 0, (after >= 0) & (after == before - 1))
    first = np.flatnonzero(np.concatenate([[True], ~goes_on])[: len(prev)])
    lengths = np.diff(first, append=len(prev))
    return np.repeat(smaller_before(prev[first], lengths), lengths)


def smaller_before(values: IntArray, weights: IntArray) -> IntArray:
    """Return what earlier entries that are smaller than each weigh, int64[n]; entries are >= -1.

    Entries are taken apart by one bit of their rank at a time, the highest first.  Of two that
    agree in all higher bits the one with a 0 is the smaller, so each 1 weighs the zeros before it
    in its group; the groups are then split, both halves in the order of time.
    """
    n = len(values)
    # Half the width is twice the speed; a trace of 2^31 blocks would not fit into memory anyway.
    small = np.int32 if n < 2**31 else np.int64
    index = np.arange(n, dtype=small)
    # Equal values must not count each other: the later one ranks lower.
    order = np.argsort(values[::-1], kind="stable")
    rank = np.empty(n, dtype=small)
    rank[n - 1 - order] = index
    count, weight, at = np.zeros(n, dtype=np.int64), weights.astype(np.int64), index
    for bit in reversed(range(max(n - 1, 1).bit_length())):
        # A group holds all ranks that agree in the higher bits, so its smallest is where it starts.
        start = (rank >> (bit + 1)) << (bit + 1)
        one = (rank >> bit & 1).astype(bool)
        zeros = np.cumsum(~one, dtype=small)
        before = zeros - ~one - np.where(start > 0, zeros[start - 1], 0)
        heavy = np.cumsum(np.where(one, 0, weight))
        count += np.where(one, heavy - np.where(start > 0, heavy[start - 1], 0), 0)
        place = start + np.where(one, (1 << bit) + index - start - before, before)
        moved = []
        for column in (rank, count, weight, at):
            split = np.empty_like(column)
            split[place] = column
            moved.append(split)
        rank, count, weight, at = moved
    result = np.empty(n, dtype=np.int64)
    result[at] = count
    return result
