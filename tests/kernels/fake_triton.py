"""Triton's launches up to the driver: what would be compiled, and which pointers it is given.

Binding and specialisation are Triton's own; compiling and the GPU are made up.  Kernels do nothing.
"""

from collections import defaultdict
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget

from kernels import registry, triton_decode, triton_prefill, triton_slots
from kernels.support import YES

TARGET = GPUTarget("cuda", 90, 32)
KERNELS = (
    triton_decode.decode_split,
    triton_decode.decode_reduce,
    triton_prefill.prefill_block,
    triton_slots.store_slots,
    triton_slots.move_slots,
)


def mapped(address):
    """Say whether there is memory at an address that may be read; what the driver is asked."""
    with open("/proc/self/maps") as file:
        for line in file:
            area, access = line.split(maxsplit=2)[:2]
            first, last = (int(x, 16) for x in area.split("-"))
            if first <= address < last:
                return access.startswith("r")
    return False


def check_pointers(args):
    """Refuse as Triton's launcher does where cuPointerGetAttribute knows of nothing."""
    for arg in args:
        if hasattr(arg, "data_ptr") and arg.data_ptr() and not mapped(arg.data_ptr()):
            raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")


class Launches:
    """`compiled`: (kernel, signature, values known to the compiler) of each compilation.

    `sources`: by kernel, what `triton.compile` takes.  `launched`: (kernel, grid, arguments).
    """

    def __init__(self):
        self.compiled, self.launched, self.sources = [], [], {}

    def compile(self, src, target=None, options=None, **_):
        self.sources[src.fn.__name__] = (src, options)
        self.compiled.append((src.fn.__name__, str(src.signature), str(src.constants)))

        def run(*args):
            grid, args = args[:3], args[9:]
            check_pointers(args)
            self.launched.append((src.fn.__name__, grid, args))

        return SimpleNamespace(
            run=run, function=0, packed_metadata=(), launch_metadata=lambda *args: None
        )


class Driver:
    def __init__(self, target=TARGET):
        self.target = target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return self.target


@contextmanager
def launches(driver=None, target=TARGET):
    """Let back end `triton` be chosen for CPU tensors, and note what it launches on `target`.

    With a driver of Triton's own, kernels are compiled and launched by that.
    """
    noted = Launches()
    compiling = triton.compiler.compile if driver else noted.compile
    active = triton.runtime.driver._active
    triton.runtime.driver.set_active(driver or Driver(target))
    registry._probe.cache_clear()
    backend = registry.REGISTRY["triton"]
    kept = {"head_dims": backend.head_dims, "sinks": backend.sinks}
    anyhow = registry.Backend(backend.module, lambda *question: YES, **kept)
    kept = [kernel.device_caches for kernel in KERNELS]
    for kernel in KERNELS:
        kernel.device_caches = defaultdict(kernel.create_binder)
    try:
        with (
            mock.patch.object(triton.compiler, "compile", compiling),
            mock.patch.dict(registry.REGISTRY, triton=anyhow),
            torch.inference_mode(),
        ):
            yield noted
    finally:
        for kernel, caches in zip(KERNELS, kept, strict=True):
            kernel.device_caches = caches
        registry._probe.cache_clear()
        triton.runtime.driver._active = active
