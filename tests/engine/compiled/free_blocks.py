"""What is free and what has a key after a run, by the loop over arrays and by the classes."""

import numpy as np

from allocators.prefix.pool import OrderedPool


def free_and_named(arrays):
    """Return a loop's free blocks in order, and those of each key, oldest first."""
    pool, free, named = arrays.pool, [], {}
    blocks, end = pool.blocks, len(pool.blocks) - 1
    at = blocks[end].behind
    while at != end:
        assert blocks[blocks[at].behind].before == at
        free.append(int(at))
        at = blocks[at].behind
    table = pool.table.tolist()
    start = table.index(-1)  # whoever runs over the end is behind who stands at the start
    for entry in table[start:] + table[:start]:
        if entry >= 0 or entry < -1:
            block = entry & (2**32 - 1)
            key = (int(blocks[block].first) % 2**64, int(blocks[block].second) % 2**64)
            named.setdefault(key, []).append(block)
    counts = pool.counts[0]
    heap = pool.ranks.heap[: counts.ranked].tolist()
    assert pool.ranks.place[heap].tolist() == list(range(len(heap)))
    rank = {block: (int(of.hits), int(of.since)) for block in heap for of in [pool.ranks[block]]}
    free += sorted(heap, key=rank.get)
    assert counts.free == len(free)
    assert counts.cached == blocks.keyed[free].sum()
    assert blocks.keyed.sum() == sum(map(len, named.values()))
    return free, named, int(counts.evictions)


def free_and_named_of(allocator):
    """Return the same of an allocator."""
    allocator.check()
    index, named = allocator.index, {}
    for key, page in index._page_of.items():
        for each in (page, *index._more.get(key, [])):
            named.setdefault((key, int(index._second[each])), []).append(each)
    pool = allocator.pages.free
    if not isinstance(pool, OrderedPool):
        return pool.pages().tolist(), named, allocator.evictions
    ranked = sorted(np.flatnonzero(pool.order.free).tolist(), key=pool.order._rank)
    return [*pool._blank.pages().tolist(), *ranked], named, allocator.evictions
