"""Memory of layer groups mapped by a CUDA driver that is made up; nothing here runs on a GPU."""

import numpy as np
import pytest
import torch

from allocators.base import Demand, Grant, Prompt
from allocators.virtual import Virtual
from kernels import place
from kernels.memory import BackingError, OutOfMemory, backing_for
from kernels.memory.layered_virtual import LayeredVirtualMemory
from kernels.memory.virtual import VirtualMemory
from tests.executors.model.serving_cases import GEMMA, geometry
from tests.executors.model.test_windows import manager
from tests.kernels.memory.cases import walk
from tests.kernels.memory.expected import expected_bytes
from tests.kernels.memory.fake_cuda import FakeCuda, FakeTorchCuda
from tests.measure.cuda_backing import CUDA, OnMainMemory


def open_fake(fake=None, tokens=300, background=False, **knobs):
    """Return a driver of small pages, an allocator, and its memory on that driver."""
    fake = fake or FakeCuda(granularity=64 << 10)
    pool = geometry(GEMMA, tokens, max_len=96, max_seqs=8, step_tokens=40)
    allocator = Virtual.of(pool, page_size="64KiB", **knobs)
    stream = FakeTorchCuda()

    def make(shape):
        driver = OnMainMemory(shape, CUDA, bindings=fake, torch_cuda=stream)
        return VirtualMemory(shape, pool, torch.float32, CUDA, driver, background=False)

    memory = LayeredVirtualMemory(allocator, torch.float32, CUDA, make, background=background)
    return fake, allocator, memory


@pytest.mark.parametrize(
    "knobs", [{}, {"layout": "sliced"}, {"window_page_size": "128KiB"}], ids=str
)
@pytest.mark.parametrize("background", [False, True])
def test_device_memory_is_what_the_allocator_says_at_every_step(background, knobs):
    """The device says what is held in all, so it is asked once, not once a layer group."""
    fake, allocator, memory = open_fake(background=background, **knobs)
    most = []

    def agrees():
        assert memory.resident_bytes() == fake.held == expected_bytes(allocator)
        assert memory.committed_bytes == fake.held
        assert fake.accessible == set(fake.mapped)
        most.append(fake.held)

    with memory:
        walk(allocator, memory, 120, agrees)
        # What others take from here on is ours, what they took before is not.
        fake.total -= 1 << 20
        memory.rebase()
        agrees()
    assert max(most) > 0.8 * allocator.geometry.pool_bytes, "the pool was meant to be used"
    assert fake.clean()


@pytest.mark.parametrize("name", ["paged", "paged_uniform", "jenga", "contiguous_grow"])
def test_a_pool_is_made_and_copied_within_on_the_device_that_is_asked_for(name):
    """A device without memory: what would compute elsewhere than there fails."""
    allocator = manager(name, 300)
    meta = torch.device("meta")
    with backing_for(allocator, dtype=torch.float32, device=meta) as memory:
        assert memory.resident_bytes() == memory.committed_bytes
        first = np.array([0])
        allocator.admit(first, Prompt(30), Demand(30, 20))
        layers = range(len(allocator.geometry.layer_groups))
        for index in layers:
            layout = memory.addressed(allocator.layer_layout(first, index), index)
            layer = next(i for i, (of, _) in enumerate(memory.places) if of == index)
            keys, values = memory.keys(layer), memory.values(layer)
            assert keys.device == values.device == place(layout, keys).table.device == meta
        memory.copy(Grant(copies=np.array([[0, 4, 2, index] for index in layers])))
        assert memory.read(0, np.array([0, 1])).device == meta


def test_page_groups_behind_a_window_are_unmapped_before_others_are_mapped():
    """Whatever the layer groups: what one gives back another may take in the same grant."""
    fake, allocator, memory = open_fake(tokens=180, deferred=False)
    turns = []
    with memory:

        def note():
            names = [n for n in fake.names() if n in ("cuMemUnmap", "cuMemRelease", "cuMemCreate")]
            fake.calls.clear()
            turns.append(names)

        inner = memory.map
        memory.map = lambda grant: (fake.calls.clear(), inner(grant), note())
        walk(allocator, memory, 120, lambda: None)
        memory.map = inner
    both = [names for names in turns if "cuMemRelease" in names and "cuMemCreate" in names]
    assert both, "no grant gave back and took"
    for names in both:
        last = max(i for i, name in enumerate(names) if name == "cuMemRelease")
        assert last < names.index("cuMemCreate")
    assert fake.clean()


@pytest.mark.parametrize("call", ["cuMemAddressReserve", "cuMemCreate", "cuMemMap", "cuMemUnmap"])
def test_an_error_at_any_call_leaves_nothing_held(call, monkeypatch):
    fake = FakeCuda(granularity=64 << 10)
    fake.fail[call] = 11 if call == "cuMemAddressReserve" else 5  # of 12 tensors the last
    close = OnMainMemory.close
    # Giving back works again.
    monkeypatch.setattr(OnMainMemory, "close", lambda self: (fake.fail.clear(), close(self)))

    def use():
        _, allocator, memory = open_fake(fake)
        with memory:
            walk(allocator, memory, 120, lambda: None)

    with pytest.raises((OutOfMemory, BackingError), match=call):
        use()
    assert fake.clean()


def test_an_error_while_closing_one_layer_group_keeps_no_other(monkeypatch):
    fake, allocator, memory = open_fake()
    walk(allocator, memory, 20, lambda: None)
    first, close = memory.members[0].driver, OnMainMemory.close

    def fails(driver):
        close(driver)
        if driver is first:
            raise BackingError("closing met 1 errors")

    monkeypatch.setattr(OnMainMemory, "close", fails)
    with pytest.raises(BackingError, match="closing met"):
        memory.close()
    assert fake.clean()
