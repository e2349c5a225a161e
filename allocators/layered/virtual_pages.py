"""Driver pages, and the page-groups of each layer group that are made of them.

A page-group of a layer group is one page in each of its virtual tensors:

| kind | tensors | tokens of a page-group |
|---|---|---|
| full, sliding, chunked, cross | keys and values of each layer | what one page holds |
| latent | one a layer | the same |
| state | one a layer, of as many pages as one state needs | one state |

`sliced` has one tensor where `per_layer` has one a layer.  All pages are of one size, so any page
can be of any layer group: a page-group is made of whichever pages are free, wherever they lie.
"""

from __future__ import annotations

import numpy as np

from allocators.base import Geometry, IntArray, NeverFits, Unsupported, one_of
from allocators.layered.pools import Pools
from allocators.layered.shapes import TableShape
from allocators.layers import LayerGroup
from allocators.page_table import FreeQueue
from allocators.virtual.shape import PAGE_BYTES


def tensors_of(kind: LayerGroup, layout: str) -> int:
    """Return how many virtual tensors a layer group has on one rank."""
    tensors = 1 if layout == "sliced" else kind.layers
    return tensors if kind.kind in ("state", "latent") else 2 * tensors


def table_shapes(
    geometry: Geometry, page_size: str, layout: str
) -> tuple[list[TableShape], IntArray]:
    """Return a table for each layer group, and the driver pages of its page-groups on one rank.

    Raises ValueError for an unknown name, `Unsupported` for a page below one token.
    """
    one_of("page_size", page_size, PAGE_BYTES)
    one_of("layout", layout, ("per_layer", "sliced"))
    page_bytes, shapes, pages = PAGE_BYTES[page_size], [], []
    for index, kind in enumerate(geometry.layer_groups):
        tensors = tensors_of(kind, layout)
        slot_bytes = -(-kind.slot_bytes // (tensors * geometry.ranks))  # in one tensor
        if kind.kind == "state":
            tokens, count = 1, tensors * -(-slot_bytes // page_bytes)
        else:
            tokens, count = page_bytes // slot_bytes, tensors
        if tokens < 1:
            raise Unsupported(
                f"a {page_size} page ({layout}) holds less than one token's KV of the "
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
    return shapes, np.array(pages, dtype=np.int64)


class DriverPages(Pools):
    """One pool of driver pages; a table's page-groups have numbers of their own.

    `of_group` [tables] is how many driver pages a page-group of a table is.
    """

    def __init__(self, pool_bytes: int, page_bytes: int, of_group: IntArray) -> None:
        """`page_bytes` are those of one driver page on all ranks."""
        self.driver_page_bytes, self.of_group = page_bytes, of_group
        self.total = pool_bytes // page_bytes
        self._sizes = self.total // of_group
        if self._sizes.min() < 1:
            raise NeverFits(
                f"the pool of {pool_bytes} bytes holds no page-group of "
                f"{int(of_group.max()) * page_bytes} bytes"
            )
        self._driver = FreeQueue(self.total)
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
    def driver_free(self) -> int:
        return len(self._driver)

    def fits(self, pages: IntArray, leave: IntArray | int = 0) -> bool:
        return int(pages @ self.of_group) + int(np.max(leave, initial=0)) <= self.driver_free

    def take(self, tables: IntArray, rows: IntArray) -> IntArray:
        pages = np.empty(len(tables), dtype=np.int64)
        for table in np.unique(tables).tolist():
            at = np.flatnonzero(tables == table)
            numbers = self._numbers[table].take(len(at))
            n = int(self.of_group[table])
            self.made_of[table][numbers] = self._driver.take(len(at) * n).reshape(-1, n)
            pages[at] = numbers + self._first[table]
        return pages

    def give(self, tables: IntArray, pages: IntArray) -> None:
        for table in np.unique(tables).tolist():
            numbers = pages[tables == table] - self._first[table]
            # Where it was is still known: a grant may name what it moves from there.
            self._driver.give(self.made_of[table][numbers].ravel())
            self._numbers[table].give(numbers)

    def free(self) -> IntArray:
        """Return the numbers of page-groups that are not in use, [tables]."""
        return np.array([len(numbers) for numbers in self._numbers], dtype=np.int64)

    @property
    def sizes(self) -> IntArray:
        return self._sizes

    @property
    def page_bytes(self) -> IntArray:
        return self.of_group * self.driver_page_bytes

    def places(self, table: int, pages: IntArray) -> IntArray:
        """Return where the first driver page of each of these page-groups begins."""
        return self.pieces(table, pages)[:, 0]

    def pieces(self, table: int, pages: IntArray) -> IntArray:
        """Return where each driver page of these page-groups begins, [page-groups, pages]."""
        return self.made_of[table][pages - self._first[table]] * self.driver_page_bytes

    def quiet(self, pages: IntArray) -> bool:
        return self.fits(pages)

    def check(self, ref: IntArray) -> None:
        held = [self._driver.pages()]
        for numbers, first, made_of in zip(
            self._numbers, self._first.tolist(), self.made_of, strict=True
        ):
            free = numbers.pages()
            assert (ref[free + first] == 0).all(), "a free page-group is in use"
            assert len(free) + int((ref[first : first + len(made_of)] > 0).sum()) == len(made_of)
            used = np.ones(len(made_of), dtype=bool)
            used[free] = False
            held.append(made_of[used].ravel())
        pages = np.sort(np.concatenate(held))
        assert np.array_equal(pages, np.arange(self.total)), "a driver page is lost or used twice"
