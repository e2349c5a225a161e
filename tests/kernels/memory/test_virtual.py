"""Virtual memory on the CPU: aliasing is real, errors are named, everything is given back."""

import gc
import os
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from allocators.base import Demand, Grant, Prompt, Unsupported
from allocators.virtual import Virtual
from kernels import load, new_slots, prefill
from kernels.memory import BackingError, OutOfMemory, backing_for, os_memory
from kernels.memory.host_space import HostSpace, LayeredHost
from kernels.memory.pool import PoolMemory
from kernels.memory.virtual import VirtualMemory
from kernels.memory.virtual_cpu import CpuDriver
from kernels.memory.virtual_shape import VirtualShape
from tests.kernels.memory.cases import (
    ALLOCATORS,
    execute,
    geometry,
    open_backing,
    small,
    tiny,
    write_values,
)  # fmt: skip
from tests.kernels.memory.expected import expected_bytes

ONE = np.array([0])


def maps_of(backing):
    """Lines of /proc/self/maps that lie at the backing's addresses."""
    found = []
    for line in all_maps():
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        size = backing.shape.tensor_bytes
        found += [line for a in backing.addresses if start < a + size and end > a]
    return found


def all_maps():
    return Path("/proc/self/maps").read_text().splitlines()


def test_a_page_group_mapped_twice_shows_the_same_bytes():
    _, backing = open_backing(background=False)
    with backing:
        backing.map(Grant(maps=np.array([[0, 0, 5], [3, 2, 5]])))
        t = backing.geometry.page_tokens
        other = (3 * backing.shape.pages_per_range + 2) * t
        assert backing.resident_bytes() == backing.shape.page_group_bytes
        for layer in range(2):
            for cache in (backing.keys(layer), backing.values(layer)):
                slots = cache.flatten(0, 1)
                slots[1] = 7.5 + layer
                assert (slots[other + 1] == 7.5 + layer).all()
                slots[other + 2] = -1.0
                assert (slots[2] == -1.0).all()


def test_resident_memory_by_three_accounts():
    allocator, backing = open_backing("virtual-rest", background=False)
    with backing:
        grant = allocator.admit(np.arange(3), Prompt(30), Demand(30, 10))
        execute(backing, allocator, grant)
        shape, places = backing.shape, backing.page_map.places
        assert places.sum() > np.count_nonzero(places) > 0
        expected = np.count_nonzero(places) * shape.page_group_bytes
        assert backing.resident_bytes() == expected == expected_bytes(allocator)
        tensors = [(a, shape.tensor_bytes) for a in backing.addresses]
        assert os_memory.resident_by_smaps(tensors) == 0
        for whole in backing._tensors:
            for place in np.flatnonzero(backing.page_map.at.ravel() >= 0).tolist():
                at = place * shape.page_numbers
                whole[at : at + shape.page_numbers] = 1.0
        # The file is counted once, mincore and smaps once for each place that shows it.
        shown = places.sum() * shape.page_group_bytes
        assert backing.resident_bytes() == expected
        assert sum(os_memory.core_bytes(*each) for each in tensors) == shown
        assert os_memory.resident_by_smaps(tensors) == shown
        execute(backing, allocator, allocator.release(np.arange(3)))
        active, cached, _ = allocator.balance()
        assert active == 0
        assert backing.resident_bytes() == cached * shape.page_group_bytes


def test_demand_paging_holds_exactly_the_touched_system_pages():
    allocator, backing = open_backing("virtual-copy", mode="demand")
    with backing:
        execute(backing, allocator, allocator.admit(ONE, Prompt(5), Demand(5, 30)))
        assert backing.resident_bytes() == 0
        write_values(backing, allocator.layout(ONE), np.arange(5))
        token = backing.shape.token_numbers * 4
        system_pages = -(-5 * token // os_memory.OS_PAGE_BYTES)
        assert backing.resident_bytes() == 4 * system_pages * os_memory.OS_PAGE_BYTES
        assert backing.resident_bytes() < expected_bytes(allocator)


def test_demand_paging_refuses_what_aliases():
    allocator, backing = open_backing("virtual-alias", mode="demand")
    with backing, pytest.raises(Unsupported, match="sharing=copy"):
        execute(backing, allocator, allocator.admit(np.arange(2), Prompt(5), Demand(5, 30)))


def test_handles_made_ahead_hold_everything_from_the_start():
    allocator, backing = open_backing(handles="ahead")
    with backing:
        whole = sum(allocator.balance()) * backing.shape.page_group_bytes
        assert backing.resident_bytes() == backing.committed_bytes == whole
        execute(backing, allocator, allocator.admit(ONE, Prompt(5), Demand(5, 30)))
        execute(backing, allocator, allocator.release(ONE))
        assert backing.resident_bytes() == whole > expected_bytes(allocator)


def test_a_moved_page_group_keeps_its_bytes_and_a_new_one_has_none():
    _, backing = open_backing(background=False)
    with backing:
        backing.map(Grant(maps=np.array([[0, 0, 5]])))
        backing.keys(0).flatten(0, 1)[0] = 3.0
        move = Grant(unmaps=np.array([[0, 0, 5]]), maps=np.array([[1, 0, 5]]))
        backing.map(move)
        at = backing.shape.pages_per_range * backing.geometry.page_tokens
        assert (backing.keys(0).flatten(0, 1)[at] == 3.0).all()
        backing.map(Grant(unmaps=np.array([[1, 0, 5]])))
        assert backing.resident_bytes() == 0
        backing.map(Grant(maps=np.array([[1, 0, 5]])))
        assert (backing.keys(0).flatten(0, 1)[at] == 0.0).all()


@pytest.mark.parametrize("packing", ["padded", "dense"])
@pytest.mark.parametrize("layout", ["per_layer", "sliced"])
def test_attention_reads_virtual_ranges_in_place(packing, layout):
    shape = geometry(11, sliced=layout == "sliced", max_seqs=4)
    allocator = Virtual(shape, page_size="64KiB", layout=layout, sharing="copy")
    with backing_for(allocator, dtype=torch.float32, packing=packing) as backing:
        lengths = [25, 40]
        for row, n in enumerate(lengths):
            execute(backing, allocator, allocator.admit(np.array([row]), Prompt(n), Demand(n, 9)))
        rows = allocator.layout(np.arange(2))
        slots = new_slots(rows, lengths)
        k, v = backing.keys(1), backing.values(1)
        numbers = torch.Generator().manual_seed(0)
        for cache in (k, v):
            at = torch.as_tensor(slots)
            cache[at // cache.shape[1], at % cache.shape[1]] = torch.randn(
                (len(slots), *k.shape[-2:]), generator=numbers
            )
        q = torch.randn((65, 4, k.shape[-1]), generator=numbers)
        args = (k, v, rows, lengths, k.shape[-1] ** -0.5)
        reference = prefill(q.double(), load(k, slots).double(), load(v, slots).double(),
                            type(rows)(np.array([0, 25]), rows.lengths), *args[3:])  # fmt: skip
        found = prefill(q, *args, backend="cpu")
        assert (found - reference).abs().max() < 1e-4
        if packing == "dense":
            assert (prefill(q, *args, backend="sdpa") - reference).abs().max() < 1e-4
        else:
            with pytest.raises(Unsupported, match="not pages"):
                prefill(q, *args, backend="sdpa")


def test_dense_packing_is_refused_where_pages_are_shared():
    with pytest.raises(Unsupported, match="dense packing needs sharing=copy"):
        open_backing("virtual-rest", packing="dense")
    open_backing("virtual-alias", packing="dense")[1].close()


@pytest.mark.parametrize(
    ("grant", "text"),
    [
        (Grant(maps=np.array([[0, 0, 1]])), "is to be mapped at (0, 0), where 5 is"),
        (Grant(unmaps=np.array([[0, 0, 1]])), "is to be unmapped at (0, 0), where 5 is"),
        (Grant(unmaps=np.array([[1, 0, 5]])), "is to be unmapped at (1, 0), where -1 is"),
        (Grant(copies=np.array([[8, 0, 1]])), "page-group 1 is to be copied and mapped nowhere"),
    ],
)
def test_a_grant_that_contradicts_what_is_mapped_is_refused(grant, text):
    _, backing = open_backing(background=False)
    with backing:
        backing.map(Grant(maps=np.array([[0, 0, 5]])))
        with pytest.raises(BackingError) as refusal:
            backing.apply(grant)
        assert text in str(refusal.value)


@pytest.mark.parametrize("mode", ["mapped", "demand"])
def test_everything_is_given_back_on_every_way_out(mode):
    def descriptors():
        return {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}

    class Interrupted(Exception):
        pass

    for error in (None, Interrupted()):
        try:
            with open_backing("virtual-copy", mode=mode)[1] as backing:
                backing.map(Grant(maps=np.array([[0, 0, 5], [1, 0, 6]])))
                assert maps_of(backing)
                if error:
                    raise error
        except Interrupted:
            pass
        assert maps_of(backing) == []
        assert not any("kv-harness" in each for each in descriptors())
        assert backing.resident_bytes() == backing.committed_bytes == 0
        backing.close()


class FailingDriver(CpuDriver):
    """Fails at the n-th call of one method."""

    def __init__(self, shape, method, after):
        super().__init__(shape)
        self.left = after
        self.areas = []  # where it ever reserved addresses
        real = getattr(self, method)

        def fail(*args):
            self.left -= 1
            if self.left < 0:
                raise OutOfMemory(f"{method} refused")
            return real(*args)

        setattr(self, method, fail)
        asked = self.reserve

        def reserve(*args):
            self.areas.append(asked(*args))
            return self.areas[-1]

        self.reserve = reserve


@pytest.mark.parametrize(("method", "after"), [("reserve", 2), ("create", 1), ("map", 6)])
@pytest.mark.parametrize("background", [False, True])
def test_a_failure_half_way_leaves_nothing_behind(method, after, background):
    allocator = ALLOCATORS["virtual-alias"]()
    shape = VirtualShape.of(allocator)
    driver = FailingDriver(shape, method, after)
    before = {line for line in all_maps() if "memfd" in line}
    threads = threading.active_count()

    def use():
        with VirtualMemory(shape, allocator.geometry, torch.float32, torch.device("cpu"), driver,
                     background=background) as backing:  # fmt: skip
            backing.map_beside(Grant(maps=np.array([[0, 0, 5], [1, 0, 6], [2, 0, 7]])))
            backing.resident_bytes()

    with pytest.raises(OutOfMemory, match=f"{method} refused"):
        use()
    gc.collect()
    assert driver.file == -1
    assert driver._reserved == {}
    assert threading.active_count() <= threads
    # Others in this process map memory of their own: what was the driver's is what counts.
    assert driver.areas
    starts = {f"{area:x}" for area in driver.areas}
    left = [line for line in all_maps() if line.split("-")[0] in starts and "---p" in line]
    assert left == []
    assert {line for line in all_maps() if "memfd" in line} <= before


def test_what_goes_on_beside_a_step_is_under_way_while_it_computes():
    _, backing = open_backing()
    begun, computed, map_page = threading.Event(), threading.Event(), backing.driver.map
    done = []

    def slow_map(*args):
        begun.set()
        assert computed.wait(30), "the step waits for its thread"
        map_page(*args)
        done.append(args)

    with backing:
        backing.map(Grant(maps=np.array([[0, 0, 5]])))
        backing.driver.map = slow_map
        backing.map_beside(Grant(maps=np.array([[1, 0, 6]])))
        assert begun.wait(30), "nothing goes on beside the step"
        backing.keys(0).flatten(0, 1)[0] = 3.0
        assert not done
        computed.set()
        backing.wait()
        assert len(done) == backing.shape.num_tensors
        at = backing.shape.range_tokens
        backing.keys(0).flatten(0, 1)[at] = 4.0
        assert backing.keys(0).flatten(0, 1)[0].unique().tolist() == [3.0]


@pytest.mark.parametrize("waits", ["wait", "resident_bytes", "map"])
def test_an_error_beside_a_step_is_raised_by_whoever_waits_for_it(waits):
    allocator = ALLOCATORS["virtual-alias"]()
    shape = VirtualShape.of(allocator)
    driver = FailingDriver(shape, "map", 0)
    with VirtualMemory(
        shape, allocator.geometry, torch.float32, torch.device("cpu"), driver
    ) as backing:
        backing.map_beside(Grant(maps=np.array([[0, 0, 5]])))
        with pytest.raises(OutOfMemory, match="map refused"):
            getattr(backing, waits)(*[Grant()] * (waits == "map"))


@pytest.mark.parametrize("handles", ["on_demand", "ahead"])
def test_what_is_unmapped_beside_a_step_is_given_back_unless_it_moves(handles):
    allocator, backing = open_backing(handles=handles)
    with backing:
        group = backing.shape.page_group_bytes
        backing.map(Grant(maps=np.array([[0, 0, 5], [0, 1, 6], [0, 2, 7]])))
        backing.keys(0).flatten(0, 1)[backing.geometry.page_tokens] = 3.0
        unmaps = np.array([[0, 2, 7], [0, 1, 6]])
        backing.map_beside(Grant(unmaps=unmaps, maps=np.array([[1, 0, 6]])))
        backing.wait()
        held = 2 if handles == "on_demand" else sum(allocator.balance())
        assert backing.committed_bytes == backing.resident_bytes() == held * group
        moved_to = backing.shape.range_tokens
        assert (backing.keys(0).flatten(0, 1)[moved_to] == 3.0).all()


def test_more_than_the_machine_has_is_out_of_memory():
    shape = small(capacity_tokens=1 << 36)
    with pytest.raises(OutOfMemory, match=r"mmap of \d+ bytes failed"):
        PoolMemory(shape, torch.float32, torch.device("cpu"), paged=False)


def test_a_pool_refuses_maps_and_a_wrong_type():
    allocator, backing = open_backing("paged-7")
    with backing, pytest.raises(BackingError, match="cannot map pages"):
        backing.map(Grant(maps=np.array([[0, 0, 1]])))
    with pytest.raises(ValueError, match=r"torch.bfloat16 has 2 bytes, the geometry 4"):
        backing_for(allocator, dtype=torch.bfloat16)
    assert backing.resident_bytes() == 0
    assert tiny().dtype_bytes == 4


@pytest.mark.parametrize("wrong", [{"dtype": torch.bfloat16}, {"handles": "soon"}])
def test_a_refused_argument_leaves_no_file_behind(wrong):
    allocator, backing = open_backing()
    backing.close()
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ValueError, match=r"bfloat16|handles"):
            backing_for(allocator, **{"dtype": torch.float32, **wrong})
    assert len(os.listdir("/proc/self/fd")) == files


def test_host_memory_that_cannot_be_had_is_out_of_memory():
    allocator, backing = open_backing()
    huge = Grant(swaps_out=np.array([[0, 0, 1]]))
    with backing:
        execute(backing, allocator, allocator.admit(np.array([0]), Prompt(3), Demand(3, 3)))
        backing.geometry = replace(backing.geometry, host_tokens=10**13)
        with pytest.raises(OutOfMemory, match="host memory"):
            HostSpace(backing).save(huge)
    # That of layer groups is as large as what is put there.
    many = torch.zeros(1).expand(1, 10**16)
    groups = SimpleNamespace(layer_groups=[None])
    layered = SimpleNamespace(geometry=groups, read=lambda index, slots: many)
    with pytest.raises(OutOfMemory, match="1 slots of host memory"):
        LayeredHost(layered).save(Grant(swaps_out=np.array([[0, 0, 1, 0]])))
