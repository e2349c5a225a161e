"""Virtual ranges into which physical page-groups are mapped on demand (vAttention, section 5).

Which page-group goes where is kept here; how memory is reserved, held and mapped is a driver's
matter: the operating system's (`virtual_cpu`) or CUDA's (`virtual_cuda`).
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch

from allocators.base import Geometry, Grant, IntArray, Unsupported, one_of
from kernels.cache import copy_slots
from kernels.memory.base import Backing
from kernels.memory.page_map import PageMap
from kernels.memory.virtual_shape import VirtualShape

HANDLES = ("on_demand", "ahead")


class PageDriver(Protocol):
    """Memory as the system has it.  Page-groups are numbered; a page is (page-group, tensor)."""

    def reserve(self, size_bytes: int) -> int:
        """Reserve addresses without memory behind them; return the first."""

    def create(self, page: int) -> None:
        """Hold the physical memory of a page-group, a page for each tensor."""

    def destroy(self, page: int) -> None:
        """Give it back; it is mapped nowhere."""

    def map(self, address: int, page: int, index: int) -> None:
        """Map the page of tensor number `index` of a page-group at an address of that tensor."""

    def unmap(self, address: int) -> None:
        """Take the page at this address away."""

    def rebase(self, own_bytes: int) -> None:
        """What the system holds at present beside our `own_bytes` is not ours."""

    def fence(self) -> None:
        """Wait until nothing that runs may still read what is about to be unmapped."""

    def wrap(self, address: int, size_bytes: int, dtype: torch.dtype) -> torch.Tensor:
        """Return a flat tensor over reserved addresses, without a copy."""

    def held_bytes(self) -> int:
        """Bytes of physical memory held, read back from the system."""

    def close(self) -> None:
        """Unmap and give back everything, whatever state it is in; may be called again."""


class Calls(NamedTuple):
    """What a grant asks of the driver: places to unmap, page-groups gone, (place, page) to map."""

    unmaps: list[int]
    gone: list[int]
    maps: list[tuple[int, int]]


class VirtualMemory(Backing):
    """Executes maps, unmaps and copies on tensors whose addresses a driver has reserved.

    With `handles="on_demand"` physical memory is held exactly while it is mapped, with "ahead" all
    of it from the start.  With `background` a thread does what goes on beside a step, and whatever
    comes next waits for it.  After an error the backing is only good for `close`.
    """

    def __init__(
        self,
        shape: VirtualShape,
        geometry: Geometry,
        dtype: torch.dtype,
        device: torch.device,
        driver: PageDriver,
        *,
        handles: str = "on_demand",
        background: bool = True,
    ) -> None:
        super().__init__(geometry, dtype, device)
        one_of("handles", handles, HANDLES)
        self.shape, self.driver, self.handles = shape, driver, handles
        self.page_map = PageMap(shape.num_ranges, shape.pages_per_range, shape.num_pages)
        self._created = np.zeros(shape.num_pages, dtype=bool)
        self._thread = ThreadPoolExecutor(1, "map-beside") if background else None
        self._pending: Future[None] | None = None
        try:
            self.addresses = [driver.reserve(shape.tensor_bytes) for _ in range(shape.num_tensors)]
            self._tensors = [driver.wrap(a, shape.tensor_bytes, dtype) for a in self.addresses]
            if handles == "ahead":
                self._create(np.arange(shape.num_pages))
        except BaseException:
            self.close()
            raise

    # -- views -------------------------------------------------------------------------------
    def keys(self, layer: int) -> torch.Tensor:
        return self.shape.cache(self._tensors, layer, value=False)

    def values(self, layer: int) -> torch.Tensor:
        return self.shape.cache(self._tensors, layer, value=True)

    @property
    def committed_bytes(self) -> int:
        return int(np.count_nonzero(self._created)) * self.shape.page_group_bytes

    def resident_bytes(self) -> int:
        self.wait()
        return 0 if self.closed else self.driver.held_bytes()

    def rebase(self) -> None:
        self.wait()
        self.driver.rebase(self.committed_bytes)

    # -- grants ------------------------------------------------------------------------------
    def map(self, grant: Grant) -> None:
        self.wait()
        began_s = time.perf_counter()
        if len(grant.unmaps):
            self.driver.fence()
        self.execute(self.note(grant))
        self.mapping_s += time.perf_counter() - began_s

    def map_beside(self, grant: Grant) -> None:
        if self._thread is None:
            self.map(grant)
        elif not grant.is_empty:
            self.wait()
            self._pending = self._thread.submit(self._beside, self.note(grant))

    def copy(self, grant: Grant) -> None:
        if not len(grant.copies):
            return
        t, shape = self.shape.page_tokens, self.shape
        # What lies behind the pages' whole tokens comes with the rests of full pages.
        source, target, n = grant.copies[grant.copies[:, 0] < shape.num_pages * t].T
        virtual = np.column_stack([self._virtual(source), self._virtual(target), n])
        copy_slots([shape.pages(whole) for whole in self._tensors], virtual, backend=self.mover)
        full = virtual[n == t]
        if shape.packing == "dense" and shape.rest_bytes and len(full):
            one = np.column_stack([full[:, :2] // t, np.ones(len(full), dtype=np.int64)])
            copy_slots([shape.rests(whole) for whole in self._tensors], one, backend=self.mover)

    def wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def located(self, slots: IntArray) -> IntArray:
        if self.shape.packing == "dense" and self.shape.rest_bytes:
            raise Unsupported("dense packing cannot swap: tokens run over page ends")
        return self._virtual(slots)

    # -- pages -------------------------------------------------------------------------------
    def note(self, grant: Grant) -> Calls:
        """Keep in mind what will be mapped where; return the driver's calls for it."""
        unmaps = [self.page_map.unmap(*entry) for entry in grant.unmaps.tolist()]
        maps = [(self.page_map.map(*entry), entry[2]) for entry in grant.maps.tolist()]
        # A page-group that only moves keeps its memory.
        left = dict.fromkeys(grant.unmaps[:, 2].tolist())
        return Calls(unmaps, [page for page in left if not self.page_map.places[page]], maps)

    def execute(self, calls: Calls) -> None:
        """Make the driver's calls: unmap, give back, then map."""
        for place in calls.unmaps:
            self._each_tensor(self.driver.unmap, place)
        self._destroy(calls.gone)
        for place, page in calls.maps:
            if not self._created[page]:
                self._create([page])
            self._each_tensor(self.driver.map, place, page)

    def _beside(self, calls: Calls) -> None:
        # Alone with the count: the next grant waits for this one.
        began_s = time.perf_counter()
        self.execute(calls)
        self.mapping_s += time.perf_counter() - began_s

    def _each_tensor(self, call, place: int, page: int | None = None) -> None:  # noqa: ANN001
        offset = place * self.shape.page_bytes
        for index, address in enumerate(self.addresses):
            call(address + offset, *(() if page is None else (page, index)))

    def _create(self, pages: list[int] | IntArray) -> None:
        for page in pages:
            self.driver.create(int(page))
            self._created[page] = True

    def _destroy(self, pages: list[int]) -> None:
        if self.handles == "ahead":
            return
        for page in pages:
            self._created[page] = False
            self.driver.destroy(page)

    def _virtual(self, slots: IntArray) -> IntArray:
        """Translate physical slots into slots of the padded view of the tensors."""
        t = self.shape.page_tokens
        return self.page_map.homes(slots // t) * t + slots % t

    # -- end ---------------------------------------------------------------------------------
    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._thread is not None:
            # What the thread met no longer matters; it must only be over before memory goes.
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._tensors = []
        self._created[:] = False
        self.driver.close()
