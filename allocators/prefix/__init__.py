"""Prefix caching for paged allocators: an index of full blocks, and the order of their eviction.

`attach` gives a page table the index and the pool of free pages that belong together.  The rules
are stated in docs/prefix.md.
"""

from __future__ import annotations

from allocators.base import Unsupported, one_of
from allocators.host import HostTier
from allocators.page_table import PageTable
from allocators.prefix.free_order import ByAgePool, UnkeyedFirstPool
from allocators.prefix.hash_index import HashIndex
from allocators.prefix.index import NullIndex, PrefixIndex
from allocators.prefix.offload import OffloadIndex
from allocators.prefix.orders import FifoOrder, LfuOrder
from allocators.prefix.pool import OrderedPool
from allocators.prefix.radix_index import RadixIndex
from allocators.prefix.s3fifo import S3FifoOrder

INDEXES = ("none", "hash", "radix")
EVICTIONS = ("lru", "lfu", "fifo", "s3fifo")
FREE_ORDERS = ("unkeyed_first", "by_age")
POOLS = {"unkeyed_first": UnkeyedFirstPool, "by_age": ByAgePool}
_ORDERS = {"lfu": LfuOrder, "fifo": FifoOrder, "s3fifo": S3FifoOrder}


def attach(
    pages: PageTable,
    prefix_index: str,
    eviction: str,
    free_order: str = "unkeyed_first",
    tier: HostTier | None = None,
) -> PrefixIndex:
    """Return the index `prefix_index` over `pages`, whose free pages it then keeps in order.

    `tier` is where evicted blocks are saved (None: nowhere).  Raises ValueError for an unknown
    name, Unsupported for a radix index with s3fifo, and for a tier or `free_order` by_age with
    other than hash and lru.
    """
    one_of("prefix_index", prefix_index, INDEXES)
    one_of("eviction", eviction, EVICTIONS)
    one_of("free_order", free_order, FREE_ORDERS)
    if tier is not None:
        if (prefix_index, eviction) != ("hash", "lru"):
            raise Unsupported(
                f"offload saves evicted blocks one by one in the order of prefix_index=hash with "
                f"eviction=lru, not of prefix_index={prefix_index} with eviction={eviction}"
            )
        return OffloadIndex(pages, POOLS[free_order](pages.num_pages), tier)
    if prefix_index == "none":
        return NullIndex()
    if free_order == "by_age" and (prefix_index, eviction) != ("hash", "lru"):
        raise Unsupported(
            f"free_order=by_age is the one queue of prefix_index=hash with eviction=lru; "
            f"prefix_index={prefix_index} with eviction={eviction} always uses blocks without a "
            f"key first"
        )
    if prefix_index == "radix":
        if eviction == "s3fifo":
            raise Unsupported(
                "prefix_index=radix evicts whole leaves, for which s3fifo is not defined; "
                "use eviction=lru, lfu or fifo, or prefix_index=hash"
            )
        return RadixIndex(pages, eviction)
    if eviction == "lru":
        return HashIndex(pages, POOLS[free_order](pages.num_pages))
    return HashIndex(pages, OrderedPool(pages.num_pages, _ORDERS[eviction](pages.num_pages)))
