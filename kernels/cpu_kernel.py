"""The CPU attention kernel, compiled by Numba: reads pages in place, without a copy.

Each (row, block of queries, block of heads) is a task of its own.  A task walks the row in chunks
of `CHUNK` positions and keeps a running maximum and sum (online softmax, Milakov and Gimelshein,
arXiv 1805.02867), so a row of any length needs a few kilobytes.

The order of every addition depends on the positions alone: not on the layout, the other rows of the
batch, the number of threads, or on whether a position is computed by decode or by prefill.  All
allocators therefore get the same bits.

16-bit caches are read as integers and widened in registers.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - compiled functions have the types of their arguments

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numba.np.arrayobj import make_array

CHUNK = 32
#: how many tokens ahead keys are asked for, and numbers of a cache line (float32)
AHEAD, LINE = 4, 16
#: float32 is reordered and fused freely, but infinities stay what they are
FLAGS = {"reassoc", "contract", "arcp", "nsz", "afn"}
LOWEST = np.float32(-3.0e38)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
FP16_REBIAS = np.float32(2.0**112)


def widen(x: np.generic) -> np.float32:
    """Widen one element: float32 as it is, uint16 is a bfloat16, int16 a float16.

    Compiled code chooses by type, see `_widen`.
    """
    if isinstance(x, np.uint16):
        return _from_bfloat16(x)
    return _from_float16(x) if isinstance(x, np.int16) else x


@overload(widen)
def _widen(x):
    if x == types.uint16:
        return _from_bfloat16
    if x == types.int16:
        return _from_float16
    return lambda x: x


def _from_bfloat16(x):
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


def _from_float16(x):
    # Exponents are moved by a multiplication, which is right for subnormals as well; infinities
    # and NaNs, which a cache never holds, become large numbers.
    bits = np.uint32(np.uint16(x))
    sign = np.uint32((bits & np.uint32(0x8000)) << np.uint32(16))
    rest = np.uint32((bits & np.uint32(0x7FFF)) << np.uint32(13))
    return np.uint32(sign | rest).view(np.float32) * FP16_REBIAS


@intrinsic
def prefetch(typing, memory, at):
    """Ask for the cache line of memory[at] (flat) ahead of its use."""

    def generate(context, builder, signature, arguments):
        array = make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        bytes_ = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [bytes_, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = (number(n) for n in (0, 3, 1))
        builder.call(call, [builder.bitcast(pointer, bytes_), read, keep, data])
        return context.get_dummy_value()

    return types.void(memory, types.int64), generate


@njit(fastmath=FLAGS)
def exp(x):
    """e**x for x <= 0, written so that it vectorises (the polynomial of Cephes' expf)."""
    x = max(x, np.float32(-87.0))
    n = np.floor(x * LOG2_E + np.float32(0.5))
    r = x - n * LN2_HIGH - n * LN2_LOW
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(fastmath=FLAGS)
def score_token(q, at, key, group, scores, t):
    """scores[at + g, t] = q[at + g] . key for the `group` query heads that read this key."""
    dim = len(key)
    g = at
    while g + 4 <= at + group:
        a = b = c = d = np.float32(0.0)
        qa, qb, qc, qd = q[g], q[g + 1], q[g + 2], q[g + 3]
        for i in range(dim):
            x = widen(key[i])
            a += qa[i] * x
            b += qb[i] * x
            c += qc[i] * x
            d += qd[i] * x
        scores[g, t], scores[g + 1, t] = a, b
        scores[g + 2, t], scores[g + 3, t] = c, d
        g += 4
    while g < at + group:
        a = np.float32(0.0)
        qa = q[g]
        for i in range(dim):
            a += qa[i] * widen(key[i])
        scores[g, t] = a
        g += 1


@njit(fastmath=FLAGS)
def rescale(scores, n, peak, total, acc):
    """Turn scores into weights against the new maximum; scale what was summed before."""
    high = peak
    for t in range(n):
        high = max(high, scores[t])
    shrink = exp(peak - high)
    sum_ = np.float32(0.0)
    for t in range(n):
        w = exp(scores[t] - high)
        scores[t] = w
        sum_ += w
    if shrink != np.float32(1.0):
        for i in range(len(acc)):
            acc[i] *= shrink
    return high, total * shrink + sum_


@njit(fastmath=FLAGS)
def add_values(weights, n, v, v_at, head_at, acc):
    """acc += sum_t weights[t] v_t, four tokens at a time so that acc is read less often."""
    dim = len(acc)
    t = 0
    while t + 4 <= n:
        p0, p1, p2, p3 = weights[t], weights[t + 1], weights[t + 2], weights[t + 3]
        v0 = v[v_at[t] + head_at :][:dim]
        v1 = v[v_at[t + 1] + head_at :][:dim]
        v2 = v[v_at[t + 2] + head_at :][:dim]
        v3 = v[v_at[t + 3] + head_at :][:dim]
        for i in range(dim):
            acc[i] += (p0 * widen(v0[i]) + p1 * widen(v1[i])) + (
                p2 * widen(v2[i]) + p3 * widen(v3[i])
            )
        t += 4
    while t < n:
        p0, v0 = weights[t], v[v_at[t] + head_at :][:dim]
        for i in range(dim):
            acc[i] += p0 * widen(v0[i])
        t += 1


@njit(fastmath=FLAGS, nogil=True, cache=True, error_model="numpy")
def attend(
    q,  # float32 [T, Hq, D]
    k,  # flat memory of the keys
    v,  # flat memory of the values
    strides,  # int64 [6]: page, token, head of keys, then of values
    page_tokens,
    table,  # int32 [S, W]
    offset,  # int64 [S]
    lengths,  # int32 [S]
    starts,  # int32 [S + 1]
    group,  # query heads a KV head
    window,  # positions that a query reads, itself the last of them
    scale,
    sinks,  # float32 [Hq], or empty where there are none
    out,  # float32 [T, Hq, D]
    tasks,  # int64 [N, 5]: row, queries from, to, KV heads from, to
):
    """Work off `tasks`; holds no lock, so several threads may work at once."""
    dim = q.shape[2]
    for task in range(len(tasks)):
        row, first, last, head_from, head_to = tasks[task]
        heads = (head_to - head_from) * group
        rows = (last - first) * heads
        scaled = np.empty((rows, dim), dtype=np.float32)
        acc = np.zeros((rows, dim), dtype=np.float32)
        scores = np.empty((rows, CHUNK), dtype=np.float32)
        peak = np.full(rows, LOWEST, dtype=np.float32)
        total = np.zeros(rows, dtype=np.float32)
        if len(sinks):  # as if a position without a value had been seen before
            for at in range(rows):
                peak[at] = sinks[head_from * group + at % heads]
                total[at] = np.float32(1.0)
        k_at = np.empty(CHUNK, dtype=np.int64)
        v_at = np.empty(CHUNK, dtype=np.int64)
        for query in range(first, last):
            for h in range(heads):
                for i in range(dim):
                    x = q[query, head_from * group + h, i]
                    scaled[(query - first) * heads + h, i] = x * scale
        # Position of the first query of this task, and how far the last one sees.
        position = lengths[row] - (starts[row + 1] - first)
        end = position + (last - first)
        # What lies behind every query's window is not read; chunks begin where they always do.
        begin = max(0, position + 1 - window)
        for chunk in range(begin // CHUNK * CHUNK, end, CHUNK):
            n = min(CHUNK, end - chunk)
            behind = max(0, begin - chunk)
            for t in range(behind, n):
                at = offset[row] + chunk + t
                page = np.int64(table[row, at // page_tokens])
                token = at % page_tokens
                k_at[t] = page * strides[0] + token * strides[1]
                v_at[t] = page * strides[3] + token * strides[4]
            for t in range(behind, n):
                # A token's row ends at a page of the system, where the machine's own prefetching
                # stops; and values, read head by head later on, are no stream at all.
                ahead = k_at[min(t + AHEAD, n - 1)]
                for head in range(head_from, head_to):
                    for i in range(0, dim, LINE):
                        prefetch(v, v_at[t] + head * strides[5] + i)
                        prefetch(k, ahead + head * strides[2] + i)
                    key_at = k_at[t] + head * strides[2]
                    key = k[key_at : key_at + dim]
                    from_query = max(0, chunk + t - position)
                    to_query = min(last - first, chunk + t - position + window)
                    for query in range(from_query, to_query):
                        at = query * heads + (head - head_from) * group
                        score_token(scaled, at, key, group, scores, t)
            for query in range(last - first):
                seen_to = position + query + 1 - chunk
                seen_from = max(0, seen_to - window)
                seen = min(n, seen_to) - seen_from
                if seen <= 0:
                    continue
                for h in range(heads):
                    at = query * heads + h
                    weights = scores[at, seen_from:]
                    peak[at], total[at] = rescale(weights, seen, peak[at], total[at], acc[at])
                    head_at = (head_from + h // group) * strides[5]
                    add_values(weights, seen, v, v_at[seen_from:], head_at, acc[at])
        for query in range(last - first):
            for h in range(heads):
                at = query * heads + h
                inverse = np.float32(1.0) / total[at]
                for i in range(dim):
                    out[first + query, head_from * group + h, i] = acc[at, i] * inverse
