"""Backings whose memory is mapped by a CUDA driver that is made up, over tensors of main memory."""

import torch

from kernels.memory.virtual import VirtualMemory
from kernels.memory.virtual_cuda import CudaDriver
from kernels.memory.virtual_shape import VirtualShape
from tests.kernels.memory.fake_cuda import FakeTorchCuda

CUDA = torch.device("cuda", 0)


class OnMainMemory(CudaDriver):
    """The driver's calls go to `bindings`; what a tensor shows is memory that is always there."""

    def wrap(self, address, size_bytes, dtype):
        return torch.zeros(size_bytes // dtype.itemsize, dtype=dtype)


def cuda_backing_for(fake):
    """Return what stands in for `kernels.memory.backing_for`."""

    def made(allocator, *, dtype, device, **options):
        shape = VirtualShape.of(allocator)
        driver = OnMainMemory(shape, CUDA, bindings=fake, torch_cuda=FakeTorchCuda())
        return VirtualMemory(shape, allocator.geometry, dtype, device, driver, **options)

    return made
