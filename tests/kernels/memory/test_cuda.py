"""The CUDA backing's bookkeeping against a driver that is made up; nothing here runs on a GPU."""

import threading

import numpy as np
import pytest
import torch

from allocators.base import Grant, Unsupported
from kernels.memory import BackingError, OutOfMemory, backing_for
from kernels.memory.tensors import wrap
from kernels.memory.virtual import VirtualMemory
from kernels.memory.virtual_cuda import CudaDriver, find_bindings, probe_vmm
from kernels.memory.virtual_shape import VirtualShape
from tests.kernels.memory.cases import ALLOCATORS, walk
from tests.kernels.memory.expected import expected_bytes
from tests.kernels.memory.fake_cuda import FakeCuda, FakeTorchCuda

CUDA = torch.device("cuda", 0)


class WithoutTensors(CudaDriver):
    def wrap(self, address, size_bytes, dtype):
        return torch.empty(0, dtype=dtype)


def open_fake(fake=None, name="virtual-2MiB", **options):
    fake = fake or FakeCuda()
    allocator = ALLOCATORS[name]()
    shape = VirtualShape.of(allocator)
    driver = WithoutTensors(shape, CUDA, bindings=fake, torch_cuda=FakeTorchCuda())
    backing = VirtualMemory(shape, allocator.geometry, torch.float32, CUDA, driver, **options)
    return fake, allocator, backing


def test_a_page_group_is_created_mapped_unmapped_and_released_in_this_order():
    fake, _, backing = open_fake(background=False)
    with backing:
        fake.calls.clear()
        backing.map(Grant(maps=np.array([[0, 0, 3]])))
        a, b = backing.addresses
        two = 2 << 20
        created = [c for c in fake.calls if c[0] == "cuMemCreate"]
        assert [c[1] for c in created] == [two, two]
        assert fake.names() == ["cuMemCreate"] * 2 + ["cuMemMap", "cuMemSetAccess"] * 2
        assert [c[1] for c in fake.calls if c[0] == "cuMemMap"] == [a, b]
        fake.calls.clear()
        backing.map(Grant(unmaps=np.array([[0, 0, 3]])))
        assert fake.names() == ["cuMemUnmap"] * 2 + ["cuMemRelease"] * 2
        assert backing.driver._torch.synchronized == 1
    assert fake.clean()


def test_an_aliased_page_group_is_created_once_and_released_after_its_last_place():
    fake, _, backing = open_fake(background=False)
    with backing:
        backing.map(Grant(maps=np.array([[0, 0, 3], [1, 0, 3]])))
        assert fake.names().count("cuMemCreate") == 2
        assert len(fake.mapped) == 4
        assert fake.accessible == set(fake.mapped)
        backing.map(Grant(unmaps=np.array([[0, 0, 3]])))
        assert "cuMemRelease" not in fake.names()
        backing.map(Grant(unmaps=np.array([[1, 0, 3]])))
        assert fake.held == backing.resident_bytes() == 0
    assert fake.clean()


@pytest.mark.parametrize("background", [False, True])
def test_device_memory_is_what_the_allocator_says_at_every_step(background):
    fake, allocator, backing = open_fake(background=background)

    def agrees():
        assert backing.resident_bytes() == fake.held == expected_bytes(allocator)
        assert backing.driver.handle_bytes == fake.held

    with backing:
        walk(allocator, backing, 150, agrees)
    assert fake.clean()


def test_what_goes_on_beside_a_step_runs_in_a_thread_that_has_the_context():
    fake, _, backing = open_fake()
    seen = []
    real = type(fake).cuMemMap
    type(fake).cuMemMap = lambda self, *args: (
        seen.append(threading.current_thread().name),
        real(self, *args),
    )[1]
    try:
        with backing:
            fake.calls.clear()
            backing.map_beside(Grant(maps=np.array([[0, 0, 3]])))
            backing.wait()
    finally:
        type(fake).cuMemMap = real
    assert seen[0].startswith("map-beside")
    assert fake.names()[0] == "cuCtxSetCurrent"
    assert fake.clean()


def test_handles_made_ahead_are_mapped_again_and_released_at_the_end():
    fake, allocator, backing = open_fake(handles="ahead", background=False)
    with backing:
        groups = sum(allocator.balance())
        assert fake.names().count("cuMemCreate") == 2 * groups
        backing.map(Grant(maps=np.array([[0, 0, 3]])))
        backing.map(Grant(unmaps=np.array([[0, 0, 3]])))
        assert "cuMemRelease" not in fake.names()
        assert backing.resident_bytes() == backing.committed_bytes == groups * (4 << 20)
    assert fake.clean()


CALLS = ("cuMemAddressReserve", "cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemUnmap")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_error_at_any_call_leaves_nothing_held(call, after):
    fake = FakeCuda()
    fake.fail[call] = after

    def use():
        _, _, backing = open_fake(fake, background=False)
        with backing:
            for page in range(3):
                backing.map(Grant(maps=np.array([[page, 0, page]])))
            for page in range(3):
                backing.map(Grant(unmaps=np.array([[page, 0, page]])))
            fake.fail.clear()

    if call == "cuMemAddressReserve" and after == 2:
        use()
    else:
        with pytest.raises((OutOfMemory, BackingError), match=call):
            fake_until_close(fake, use)
    fake.fail.clear()
    assert fake.clean()


def fake_until_close(fake, use):
    """The call fails while memory is used; giving it back works."""
    real = CudaDriver.close

    def close(driver):
        fake.fail.clear()
        real(driver)

    CudaDriver.close = close
    try:
        use()
    finally:
        CudaDriver.close = real


def test_an_error_while_closing_does_not_keep_the_rest():
    fake, _, backing = open_fake(background=False)
    backing.map(Grant(maps=np.array([[0, 0, 3], [1, 0, 4]])))
    handle = next(iter(fake.handles))
    fake.handles.pop(handle)
    real = type(fake).cuMemRelease
    type(fake).cuMemRelease = lambda self, h: real(self, h) if h in self.handles else stop()
    try:
        with pytest.raises(BackingError, match="cuMemRelease failed"):
            backing.close()
    finally:
        type(fake).cuMemRelease = real
    assert fake.clean()
    backing.close()


def stop():
    raise AssertionError("no such handle")


def test_a_page_that_the_driver_cannot_map_is_unsupported():
    fake = FakeCuda()
    with pytest.raises(Unsupported, match="65536 bytes is not a multiple of the 2097152"):
        open_fake(fake, "virtual-alias")
    assert fake.clean()


def test_without_bindings_or_a_device_the_reason_is_named():
    if find_bindings() is not None and torch.cuda.is_available():
        pytest.skip("both are here")
    support = probe_vmm()
    assert not support.ok
    allocator = ALLOCATORS["virtual-2MiB"]()
    with pytest.raises(Unsupported, match="virtual memory on CUDA: "):
        backing_for(allocator, dtype=torch.float32, device="cuda")


def test_a_wrapped_range_is_a_view_and_outlives_its_wrapper():
    buffer = np.zeros(4096, dtype=np.uint8)
    tensor = wrap(buffer.ctypes.data, 4096, torch.float32)
    view = tensor[10:20]
    view += 2.5
    assert buffer.view(np.float32)[10:20].tolist() == [2.5] * 10
    assert tensor.data_ptr() == buffer.ctypes.data
    assert len(tensor) == 1024
    del tensor
    assert view.tolist() == [2.5] * 10
