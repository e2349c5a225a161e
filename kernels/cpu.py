"""Back end `cpu`: the compiled kernel over torch tensors of main memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
import torch

from allocators.base import IntArray
from kernels.batch import Batch
from kernels.cpu_kernel import attend

#: how a 16-bit cache is handed to the kernel, see `cpu_kernel.widen`
BITS = {torch.float32: None, torch.bfloat16: torch.uint16, torch.float16: torch.int16}
#: queries of a prompt that one task keeps in its cache
QUERY_BLOCK = 16
#: query-key pairs times numbers a head below which waking a thread costs more than it saves
WORTH_A_THREAD = 1 << 18
#: a window that no row is as long as
NO_WINDOW = 1 << 40
NO_SINKS = np.empty(0, dtype=np.float32)
#: pieces of work a thread: a core that is taken for a while (torch's own threads spin after a
#: product) does fewer of them
PIECES = 4


def prefill(batch: Batch) -> None:
    q, keys, values, rows, out = batch.q, batch.keys, batch.values, batch.rows, batch.out
    strides = np.array([*keys.stride()[:3], *values.stride()[:3]], dtype=np.int64)
    direct = out.dtype == torch.float32 and out.is_contiguous()
    result = out if direct else torch.empty(q.shape, dtype=torch.float32)
    lengths, starts = rows.lengths.numpy(), rows.starts.numpy()
    kv_heads = batch.kv_heads
    threads = torch.get_num_threads()
    window = NO_WINDOW if batch.window is None else batch.window
    key = (kv_heads, threads, window)
    if key not in rows.derived:
        rows.derived[key] = tasks(lengths, starts, kv_heads, threads, window)
    parts, work = rows.derived[key]
    run = partial(
        attend,
        q.float().contiguous().numpy(),
        flat(keys),
        flat(values),
        strides,
        rows.page_tokens,
        rows.table.numpy(),
        rows.offset.numpy(),
        lengths,
        starts,
        batch.group,
        window,
        np.float32(batch.scale),
        NO_SINKS if batch.sinks is None else batch.sinks.float().contiguous().numpy(),
        result.numpy(),
    )
    used = min(threads, len(parts), 1 + work * q.shape[1] * q.shape[2] // WORTH_A_THREAD)
    pieces = used * PIECES if used > 1 else 1
    queue = iter([parts[i::pieces] for i in range(pieces)])

    def work_off() -> None:
        for piece in queue:
            if len(piece):
                run(piece)

    others = [pool(threads).submit(work_off) for _ in range(1, used)]
    work_off()
    for other in others:
        other.result()
    if not direct:
        out.copy_(result)


decode = prefill


def flat(pages: torch.Tensor) -> np.ndarray:
    """View the memory from a cache's first to its last element as one vector; nothing is read."""
    extent = 1 + sum((n - 1) * s for n, s in zip(pages.shape, pages.stride(), strict=True))
    vector = pages.as_strided((extent,), (1,))
    bits = BITS[pages.dtype]
    return (vector if bits is None else vector.view(bits)).numpy()


@lru_cache(maxsize=1)
def pool(threads: int) -> ThreadPoolExecutor:
    """The threads that help the calling one."""
    return ThreadPoolExecutor(threads, "attend")


#: a forked child has the pool but not its threads, and would wait for them for ever
os.register_at_fork(after_in_child=pool.cache_clear)


def tasks(
    lengths: IntArray, starts: IntArray, kv_heads: int, threads: int, window: int = NO_WINDOW
) -> tuple[IntArray, int]:
    """Cut a batch into (row, queries from, to, KV heads from, to), the longest first, [N, 5].

    Returns it and the number of query-key pairs of the batch (an upper bound).  A decoded row keeps
    its heads together, so that memory is read in order, unless there are too few rows for the
    threads.  How it is cut does not change any result.
    """
    queries = np.diff(starts)
    blocks = -(-queries // QUERY_BLOCK)
    row = np.repeat(np.arange(len(lengths)), blocks)
    block = np.arange(len(row)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    first = starts[:-1][row] + block * QUERY_BLOCK
    last = np.minimum(first + QUERY_BLOCK, starts[1:][row])
    parts = kv_heads
    if queries.max(initial=1) == 1:
        parts = min(kv_heads, -(-4 * threads // max(1, len(row))))
    edge = np.linspace(0, kv_heads, parts + 1).astype(np.int64)
    cut = np.tile(np.column_stack([edge[:-1], edge[1:]]), (len(row), 1))
    found = np.repeat(np.column_stack([row, first, last]), parts, axis=0)
    seen = lengths[row] - (starts[1:][row] - last)
    work = np.minimum(seen, window) * (last - first)
    order = np.argsort(-np.repeat(work, parts), kind="stable")
    return np.column_stack([found, cut])[order].astype(np.int64), int(work.sum())
