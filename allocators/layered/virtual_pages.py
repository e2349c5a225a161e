"""Driver pages, and the page-groups of each layer group that are made of them.

A page-group of a layer group is one page in each of its virtual tensors:

| kind | tensors | tokens of a page-group |
|---|---|---|
| full, sliding, chunked, cross | keys and values of each layer | what one page holds |
| latent | one a layer | the same |
| state | one a layer, of as many pages as one state needs | one state |

`sliced` has one tensor where `per_layer` has one a layer.  A page-group is made of whichever pages
of its size are free, wherever they lie: any page can be of any layer group with that size.
"""

from __future__ import annotations

import numpy as np

from allocators.base import NO_MAPS, Geometry, IntArray, NeverFits, Unsupported, one_of
from allocators.layered.chunks import Chunks
from allocators.layered.pools import Pools
from allocators.layered.shapes import TableShape
from allocators.layers import KEEPING_KINDS, LayerGroup
from allocators.page_table import NO_PAGES, FreeQueue
from allocators.virtual.shape import PAGE_BYTES, check_window_page


def tensors_of(kind: LayerGroup, layout: str) -> int:
    """Return how many virtual tensors a layer group has on one rank."""
    tensors = 1 if layout == "sliced" else kind.layers
    return tensors if kind.kind in ("state", "latent") else 2 * tensors


def table_shapes(
    geometry: Geometry, page_size: str, window_page_size: str | None, layout: str
) -> tuple[list[TableShape], IntArray, IntArray]:
    """Return a table for each layer group, its pages' bytes, and the pages of its page-groups.

    Bytes and pages are those of one rank, [tables].  `window_page_size` is for layer groups of
    which a sequence holds a bounded part.

    Raises ValueError for an unknown name, `Unsupported` for a page below one token.
    """
    one_of("page_size", page_size, PAGE_BYTES)
    check_window_page(window_page_size)
    one_of("layout", layout, ("per_layer", "sliced"))
    shapes, pages, bytes_of = [], [], []
    for index, kind in enumerate(geometry.layer_groups):
        size = page_size if kind.kind in KEEPING_KINDS else window_page_size or page_size
        page_bytes = PAGE_BYTES[size]
        tensors = tensors_of(kind, layout)
        slot_bytes = -(-kind.slot_bytes // (tensors * geometry.ranks))  # in one tensor
        if kind.kind == "state":
            tokens, count = 1, tensors * -(-slot_bytes // page_bytes)
        else:
            tokens, count = page_bytes // slot_bytes, tensors
        if tokens < 1:
            raise Unsupported(
                f"a {size} page ({layout}) holds less than one token's KV of the "
                f"{kind.layers} {kind.kind} layers"
            )
        shapes.append(
            TableShape(
                members=(index,),
                kind=kind.kind,
                page_tokens=tokens,
                page_bytes=count * page_bytes * geometry.ranks,
                window=kind.window,
                encoder_tokens=kind.encoder_tokens,
                pool=index,
            )
        )
        pages.append(count)
        bytes_of.append(page_bytes)
    return shapes, np.array(bytes_of, dtype=np.int64), np.array(pages, dtype=np.int64)


class DriverPages(Pools):
    """Pages of one or two sizes out of one pool; a table's page-groups have numbers of their own.

    `of_group` [tables] is how many driver pages a page-group of a table is.
    """

    def __init__(self, pool_bytes: int, page_bytes: IntArray, of_group: IntArray) -> None:
        """`page_bytes` [tables] are those of one driver page of each table on all ranks."""
        self.bytes_of, self.of_group = page_bytes, of_group
        #: bytes of a chunk, and of the smaller page, in which memory is counted
        self.chunk_bytes, self.unit_bytes = int(page_bytes.max()), int(page_bytes.min())
        self.is_small = page_bytes < self.chunk_bytes
        self.total, parts = pool_bytes // self.chunk_bytes, self.chunk_bytes // self.unit_bytes
        self._sizes = self.total * np.where(self.is_small, parts, 1) // of_group
        if self._sizes.min() < 1:
            raise NeverFits(
                f"the pool of {pool_bytes} bytes holds no page-group of "
                f"{int((of_group * page_bytes).max())} bytes"
            )
        self.chunks = Chunks(self.total, parts)
        #: driver pages of a page-group in large and in small pages, [2, tables]; and in small ones
        self.weights = np.stack([of_group * ~self.is_small, of_group * self.is_small])
        self.units = of_group * (page_bytes // self.unit_bytes)
        self._numbers = [FreeQueue(size) for size in self._sizes.tolist()]
        self._first = np.cumsum(self._sizes) - self._sizes
        self.num_pages = int(self._sizes.sum())
        self.members = np.eye(len(of_group), dtype=np.int64)
        #: the driver pages of each page-group that is in use, or was last
        self.made_of = [
            np.full((size, n), -1, dtype=np.int64)
            for size, n in zip(self._sizes.tolist(), of_group.tolist(), strict=True)
        ]

    @property
    def two_sizes(self) -> bool:
        return self.chunks.parts > 1

    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        large, small = self.weights @ pages
        return self.chunks.fits(int(large) + int(np.max(leave, initial=0)), int(small))

    def take(self, tables: IntArray, rows: IntArray) -> IntArray:
        pages = np.empty(len(tables), dtype=np.int64)
        for table in np.unique(tables).tolist():
            at = np.flatnonzero(tables == table)
            numbers = self._numbers[table].take(len(at))
            n = int(self.of_group[table])
            take = self.chunks.take_small if self.is_small[table] else self.chunks.take
            self.made_of[table][numbers] = take(len(at) * n).reshape(-1, n)
            pages[at] = numbers + self._first[table]
        return pages

    def give(self, tables: IntArray, pages: IntArray) -> None:
        for table in np.unique(tables).tolist():
            numbers = pages[tables == table] - self._first[table]
            give = self.chunks.give_small if self.is_small[table] else self.chunks.give
            # Where it was is still known: a grant may name what it moves from there.
            give(self.made_of[table][numbers].ravel())
            self._numbers[table].give(numbers)

    def converted(self, ranks: int) -> IntArray:
        """Return `Grant.converted` of what was taken since this was last asked."""
        rows, self.chunks.converted = self.chunks.converted, []
        if not rows:
            return NO_MAPS
        chunk, before, after = np.array(rows, dtype=np.int64).T
        size = self.chunk_bytes // ranks
        return np.column_stack([chunk, size // before, size // after])

    def chunks_of(self, table: int, pages: IntArray) -> IntArray:
        """Return the chunk of each driver page of page-groups in small pages, one after another."""
        return (self.made_of[table][pages - self._first[table]] // self.chunks.parts).ravel()

    def free(self) -> IntArray:
        """Return the numbers of page-groups that are not in use, [tables]."""
        return np.array([len(numbers) for numbers in self._numbers], dtype=np.int64)

    @property
    def sizes(self) -> IntArray:
        return self._sizes

    @property
    def page_bytes(self) -> IntArray:
        return self.of_group * self.bytes_of

    def places(self, table: int, pages: IntArray) -> IntArray:
        """Return where the first driver page of each of these page-groups begins."""
        return self.pieces(table, pages)[:, 0]

    def pieces(self, table: int, pages: IntArray) -> IntArray:
        """Return where each driver page of these page-groups begins, [page-groups, pages]."""
        return self.made_of[table][pages - self._first[table]] * self.bytes_of[table]

    def quiet(self, pages: IntArray) -> bool:
        return self.fits(pages)

    def check(self, ref: IntArray) -> None:
        held: tuple[list[IntArray], list[IntArray]] = ([NO_PAGES], [NO_PAGES])
        for numbers, first, made_of, is_small in zip(
            self._numbers, self._first.tolist(), self.made_of, self.is_small.tolist(), strict=True
        ):
            free = numbers.pages()
            assert (ref[free + first] == 0).all(), "a free page-group is in use"
            assert len(free) + int((ref[first : first + len(made_of)] > 0).sum()) == len(made_of)
            used = np.ones(len(made_of), dtype=bool)
            used[free] = False
            held[is_small].append(made_of[used].ravel())
        self.chunks.check(*map(np.concatenate, held))
