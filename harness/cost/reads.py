"""What attention reads of sequences of given lengths, in layers of one kind; whole numbers.

All of it is worked out over all sequences, and over all steps of a batch that just decodes, at
once.  A token at position p, from 0, reads itself and what is left of the p tokens before it: all
of them (`full`, `latent`), those within its window, those of its chunk, or the encoder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from allocators.layers import IntArray, LayerGroup


def decode_reads(groups: Sequence[LayerGroup], lengths: IntArray, steps: int = 1) -> IntArray:
    """Return the slots that a batch reads in each layer group in each step, [layer groups, steps].

    `lengths` [n] are those of the first step, the new token included; each step adds a token to
    each sequence.  A state is one slot, which is read and written.
    """
    if steps == 1:  # by far the most usual, and in a few calls
        return np.array([[_one_step(group, lengths)] for group in groups], dtype=np.int64)
    n, later = len(lengths), np.arange(steps, dtype=np.int64)
    found = np.empty((len(groups), steps), dtype=np.int64)
    for row, group in zip(found, groups, strict=True):
        if not group.grows:
            row[:] = n * (group.encoder_tokens or 1)
        elif group.kind == "sliding":
            row[:] = _within_window(lengths, later, group.window)
        elif group.kind == "chunked":
            row[:] = _within_chunk(lengths, later, group.window)
        else:
            row[:] = int(lengths.sum()) + n * later
    return found


def _one_step(group: LayerGroup, lengths: IntArray) -> int:
    if not group.grows:
        return len(lengths) * (group.encoder_tokens or 1)
    if group.kind == "sliding":
        return int(np.minimum(lengths, group.window).sum())
    if group.kind == "chunked":
        return int(((lengths - 1) % group.window).sum()) + len(lengths)
    return int(lengths.sum())


def _within_window(lengths: IntArray, later: IntArray, window: int) -> IntArray:
    """Return the sum of min(length + j, window), for each j of `later`."""
    waits = np.sort(window - lengths)  # so many steps until a sequence has the whole window
    short = np.concatenate(([0], np.cumsum(window - waits)))  # of the longest so many sequences
    whole = np.searchsorted(waits, later, side="right")
    n = len(lengths)
    return whole * window + short[n] - short[whole] + (n - whole) * later


def _within_chunk(lengths: IntArray, later: IntArray, chunk: int) -> IntArray:
    """Return the sum of (length - 1 + j) % chunk + 1, for each j of `later`."""
    places = np.sort((lengths - 1) % chunk)
    turns, rest = later // chunk, later % chunk
    n = len(lengths)
    turned = n - np.searchsorted(places, chunk - rest, side="left")
    return int(places.sum()) + n * (later + 1) - chunk * (n * turns + turned)


class Pieces(NamedTuple):
    """Sums over pieces of prompts, as `flat.prefill_s` takes them.

    own: tokens computed.  read: slots read.  Of (query, key) pairs there are about
    crossed + squares / 2, the diagonal counted half.
    """

    own: int
    read: int
    crossed: int
    squares: int


def prefill_reads(group: LayerGroup, new: IntArray, past: IntArray) -> Pieces:
    """Return the sums of pieces of `new` [m] tokens behind `past` [m] others, in one layer group.

    A window cuts a piece into the part before the window is full, where each token reads one more
    than the one before it, and the rest, where each reads `window`.  For a state each piece reads
    and writes one slot, and `crossed` counts its tokens.
    """
    own, end = int(new.sum()), past + new
    if group.kind == "state":
        pieces = int(np.count_nonzero(new))
        return Pieces(own, 2 * pieces, own, 0)
    if group.kind == "cross":
        pieces = int(np.count_nonzero(new))
        return Pieces(own, pieces * group.encoder_tokens, own * group.encoder_tokens, 0)
    if group.kind == "sliding":
        window = group.window
        first = np.minimum(past, window)
        rising = np.minimum(end, window) - first
        crossed = first * rising + window * (new - rising)
        read = own + int(np.minimum(past, window - 1).sum())
        return Pieces(own, read, int(crossed.sum()), int((rising * rising).sum()))
    if group.kind == "chunked":
        chunk = group.window
        squares = (end // chunk - past // chunk) * chunk * chunk
        squares += (end % chunk) ** 2 - (past % chunk) ** 2
        return Pieces(own, own + int((past % chunk).sum()), 0, int(squares.sum()))
    return causal_reads(new, past)


def causal_reads(new: IntArray, past: IntArray) -> Pieces:
    """Return the sums where each token reads all before it."""
    own = int(new.sum())
    return Pieces(own, own + int(past.sum()), int((new * past).sum()), int((new * new).sum()))
