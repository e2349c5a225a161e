"""Launches through Triton's own launcher over a made-up libcuda; run by test_launches, apart.

Arguments: the directory of libcuda.so.1.  Prints how many kernels were launched.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
import torch
from triton.backends.nvidia import driver as nvidia

from allocators.base import Grant, Strided
from kernels import copy_slots, decode, place, prefill, store
from kernels.memory import backing_for
from kernels.triton_slots import move_slots
from tests.executors.model.serving_cases import virtual
from tests.kernels.fake_triton import Driver, launches

stub = ctypes.CDLL(str(Path(sys.argv[1]) / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)


class RealDriver(Driver):
    def __init__(self):
        super().__init__()
        self.utils, self.launcher_cls = nvidia.CudaUtils(), nvidia.CudaLauncher


with (
    backing_for(virtual(600), dtype=torch.float32) as memory,
    launches(RealDriver()),
):
    memory.map(Grant(maps=np.array([[1, 0, 3]])))
    k, v = memory.keys(0), memory.values(0)
    base = k.shape[1] * memory.shape.pages_per_range
    new, rows = torch.ones((2, *k.shape[2:])), Strided(np.array([base]), np.array([2]))
    store(new, new, k, v, np.array([base, base + 1]), backend="triton")
    decode(new[:1], k, v, place(rows, k), 1.0, backend="triton")
    prefill(new, k, v, place(rows, k, [2]), None, 1.0, backend="triton")
    copy_slots([k], np.array([[base, base + 1, 1]]), backend="triton")
    print("launched", stub.launches())
    one = torch.zeros(1, dtype=torch.int64)
    try:
        move_slots[(1, 1)](k, 0, k, 0, one, one, 16, 16, *[16] * 8, WHOLE=True, BLOCK=1024)
    except ValueError as error:
        print("refused:", error)
    sys.stdout.flush()
