"""Chooses the backing that an allocator's declarations ask for."""

from __future__ import annotations

import torch

from allocators.base import Allocator, Geometry, Unsupported
from allocators.layered.base import LayeredAllocator
from kernels.memory.base import Backing
from kernels.memory.layered_pool import LayeredPool
from kernels.memory.layered_virtual import LayeredVirtualMemory
from kernels.memory.pool import PoolMemory
from kernels.memory.virtual import PageDriver, VirtualMemory
from kernels.memory.virtual_shape import VirtualShape


def backing_for(
    allocator: Allocator,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    mode: str = "mapped",
    packing: str = "padded",
    handles: str = "on_demand",
    background: bool = True,
) -> Backing:
    """Return real memory for this allocator, on one rank.

    The last four count for policies that map page-groups only: `mode` is "mapped" (explicit maps)
    or "demand" (CPU: the operating system commits on first touch), `packing` see `VirtualShape`,
    `handles` "on_demand" (physical memory is held while mapped) or "ahead" (all of it from the
    start), `background` does in a thread what goes on beside a step.  Raises `Unsupported`,
    `OutOfMemory`.
    """
    device, geometry = torch.device(device), allocator.geometry

    def virtual(shape: VirtualShape, background: bool = False) -> VirtualMemory:
        return _virtual(
            shape, geometry, dtype, device, mode=mode, handles=handles, background=background
        )

    if geometry.layer_groups:
        if not isinstance(allocator, LayeredAllocator):
            raise Unsupported(f"{type(allocator).__name__} knows no layer groups")
        if not allocator.pages_per_group:
            return LayeredPool(allocator, dtype, device)
        if (packing, handles) != ("padded", "on_demand"):
            raise Unsupported(
                "page-groups of layer groups need executor.packing=padded and "
                "executor.handles=on_demand: each has tokens and driver pages of its own"
            )
        return LayeredVirtualMemory(allocator, dtype, device, virtual, background=background)
    if not allocator.pages_per_group:
        return PoolMemory(geometry, dtype, device, paged=allocator.block_tables)
    return virtual(VirtualShape.of(allocator, packing), background)


def _virtual(
    shape: VirtualShape,
    geometry: Geometry,
    dtype: torch.dtype,
    device: torch.device,
    *,
    mode: str,
    handles: str,
    background: bool,
) -> VirtualMemory:
    if mode == "demand":
        from kernels.memory.demand import DemandMemory

        return DemandMemory(shape, geometry, dtype, device)
    if mode != "mapped":
        raise ValueError(f"mode must be mapped or demand, got {mode!r}")
    if device.type == "cpu":
        from kernels.memory.virtual_cpu import CpuDriver

        driver: PageDriver = CpuDriver(shape, device)
    else:
        from kernels.memory.virtual_cuda import CudaDriver

        driver = CudaDriver(shape, device)
    try:
        return VirtualMemory(
            shape, geometry, dtype, device, driver, handles=handles, background=background
        )
    except BaseException:
        driver.close()
        raise
