"""A CUDA driver that is made up: it keeps the rules of the real one and counts what is held."""

from __future__ import annotations

from enum import IntEnum
from types import SimpleNamespace


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2


class Handle(int):
    """Distinct from a number of the same value, as the bindings' handles are."""


class FakeCuda:
    """Names and signatures are those of `cuda.bindings.driver`; `calls` lists what was called."""

    CUresult = CUresult
    CUmemAllocationGranularity_flags = SimpleNamespace(CU_MEM_ALLOC_GRANULARITY_MINIMUM=0)
    CUmemAllocationType = SimpleNamespace(CU_MEM_ALLOCATION_TYPE_PINNED=1)
    CUmemLocationType = SimpleNamespace(CU_MEM_LOCATION_TYPE_DEVICE=1)
    CUmemAccess_flags = SimpleNamespace(CU_MEM_ACCESS_FLAGS_PROT_READWRITE=3)

    def __init__(self, total=1 << 30, granularity=2 << 20):
        self.total, self.granularity = total, granularity
        self.calls = []
        self.fail = {}
        self.handles, self.mapped, self.ranges = {}, {}, {}
        self.sizes = {}
        self.accessible = set()
        self.contexts = 0
        self._next = 1

    def CUmemAllocationProp(self):
        return SimpleNamespace(type=None, location=SimpleNamespace(type=None, id=None))

    def CUmemAccessDesc(self):
        return SimpleNamespace(location=SimpleNamespace(type=None, id=None), flags=None)

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if not (name.startswith("cu") and callable(found)):
            return found

        def call(*args):
            self.calls.append((name, *args))
            left = self.fail.get(name)
            if left is not None:
                self.fail[name] = left - 1
                if left <= 0:
                    return (CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
            try:
                result = found(*args)
            except AssertionError:
                return (CUresult.CUDA_ERROR_INVALID_VALUE,)
            return (CUresult.CUDA_SUCCESS, *(() if result is None else result))

        return call

    def names(self):
        return [name for name, *_ in self.calls]

    def clean(self):
        return not (self.handles or self.mapped or self.ranges or self.contexts)

    @property
    def held(self):
        return sum(self.handles.values())

    # -- the driver's calls ------------------------------------------------------------------
    def cuInit(self, flags):
        assert flags == 0

    def cuDeviceGet(self, index):
        return (index,)

    def cuDevicePrimaryCtxRetain(self, device):
        self.contexts += 1
        return ("context",)

    def cuDevicePrimaryCtxRelease(self, device):
        assert self.contexts
        self.contexts -= 1

    def cuCtxSetCurrent(self, context):
        assert context == "context"

    def cuMemGetInfo(self):
        return self.total - self.held, self.total

    def cuMemGetAllocationGranularity(self, prop, flag):
        assert prop.location.id == 0
        return (self.granularity,)

    def cuMemAddressReserve(self, size, alignment, address, flags):
        assert size % self.granularity == 0
        found = self._next << 40
        self._next += 1
        self.ranges[found] = size
        return (found,)

    def cuMemAddressFree(self, address, size):
        assert self.ranges.get(address) == size
        assert not any(address <= at < address + size for at in self.mapped)
        del self.ranges[address]

    def cuMemCreate(self, size, prop, flags):
        assert size % self.granularity == 0
        handle = Handle(self._next)
        self._next += 1
        self.handles[handle] = size
        return (handle,)

    def cuMemRelease(self, handle):
        del self.handles[handle]

    def cuMemMap(self, address, size, offset, handle, flags):
        assert handle in self.handles
        assert address not in self.mapped
        assert any(a <= address and address + size <= a + n for a, n in self.ranges.items())
        self.mapped[address] = handle
        self.sizes[address] = size

    def cuMemSetAccess(self, address, size, descriptions, count):
        assert len(descriptions) == count == 1
        self.accessible.update(self._mappings(address, size))

    def cuMemUnmap(self, address, size):
        for at in self._mappings(address, size):
            del self.mapped[at]
            self.accessible.discard(at)

    def _mappings(self, address, size):
        """Return where the mappings begin that fill a range: no gap, and none of them in part."""
        found, at = [], address
        while at < address + size:
            assert at in self.mapped
            found.append(at)
            at += self.sizes[at]
        assert at == address + size
        return found


class FakeTorchCuda:
    """What the driver asks of `torch.cuda`."""

    def __init__(self):
        self.synchronized = 0

    def init(self):
        pass

    def synchronize(self, device):
        self.synchronized += 1

    def memory_reserved(self, device):
        return 0
