"""Allocators over real memory: each token has a value of its own, written and read for real."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from allocators.base import Demand, Geometry, Prompt
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import PAGE_BYTES, Virtual
from harness.conformance.memory import SlotMemory
from kernels import load, new_slots, store
from kernels.memory import backing_for
from kernels.memory.host_space import HostSpace
from kernels.memory.os_memory import OS_PAGE_BYTES
from tests.kernels.memory.expected import expected_bytes

#: keys of the first layer hold a token's value; each next cache that much more
CACHE_STEP = 1 << 20


def geometry(tokens, page_size="64KiB", sliced=False, layers=2, **over):
    """A shape whose page-group holds `tokens` tokens, not always to the end of the page."""
    heads = 2
    numbers = PAGE_BYTES[page_size] // 4 // tokens // heads // (layers if sliced else 1)
    over = {
        "capacity_tokens": 14 * tokens,
        "host_tokens": 6 * tokens,
        "max_seqs": 8,
        "max_len": 6 * tokens - 1,
    } | over
    return Geometry(layers=layers, kv_heads=heads, head_dim=numbers, dtype_bytes=4, **over)


def small(**over):
    return geometry(8, **over | {"page_size": "64KiB"})


ALLOCATORS = {
    "paged-1": lambda: Paged(tiny(), block_size=1),
    "paged-7": lambda: Paged(tiny(), block_size=7),
    "paged-16": lambda: Paged(tiny(), block_size=16),
    "paged-radix": lambda: Paged(tiny(), block_size=4, prefix_index="radix"),
    "paged-offload": lambda: Paged(tiny(), block_size=4, prefix_index="hash", offload=True),
    "contiguous-max": lambda: Contiguous(tiny(), reservation="max"),
    "contiguous-grow": lambda: Contiguous(tiny(), reservation="grow", placement="first_fit"),
    "virtual-alias": lambda: Virtual(small(), page_size="64KiB"),
    "virtual-plain": lambda: Virtual(
        small(), page_size="64KiB", deferred=False, background=False
    ),
    "virtual-rest": lambda: Virtual(geometry(11), page_size="64KiB"),
    "virtual-sliced": lambda: Virtual(
        geometry(8, sliced=True), page_size="64KiB", layout="sliced"
    ),
    "virtual-sliced-rest": lambda: Virtual(
        geometry(7, "128KiB", sliced=True, layers=3), page_size="128KiB", layout="sliced"
    ),
    "virtual-copy": lambda: Virtual(geometry(11), page_size="64KiB", sharing="copy"),
    # What its pages have beside their tokens cannot be swapped where it is packed densely.
    "virtual-copy-no-host": lambda: Virtual(
        geometry(11, host_tokens=0), page_size="64KiB", sharing="copy"
    ),
    # 47 tokens fill 6 page-groups of 7.9 tokens, the last 5 behind the whole ones of each.
    "virtual-copy-tail": lambda: Virtual(
        replace(geometry(7, host_tokens=0, max_len=47), head_dim=1037),
        page_size="64KiB",
        sharing="copy",
    ),
    "virtual-hash": lambda: Virtual(small(), page_size="64KiB", prefix_index="hash"),
    "virtual-2MiB": lambda: Virtual(geometry(16, "2MiB", layers=1), page_size="2MiB"),
}  # fmt: skip


def tiny():
    return Geometry(
        capacity_tokens=128, max_seqs=8, max_len=60, layers=2, kv_heads=2, head_dim=8,
        dtype_bytes=4, host_tokens=56,
    )  # fmt: skip


def execute(backing, allocator, grant):
    """Execute a grant and what else a step takes in which this was all that was granted."""
    before, beside = allocator.begin_step()
    backing.map(grant)
    backing.map(before)
    backing.copy(grant)
    backing.map_beside(beside)
    backing.wait()


def walk(allocator, memory, steps, after):
    """Admit, grow and end sequences at random; call `after` when each step's grants are done."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        live, idle = np.flatnonzero(allocator.active), np.flatnonzero(~allocator.active)
        if len(idle) and rng.random() < 0.3:
            n = int(rng.integers(1, 60))
            grant = allocator.admit(idle[:1], Prompt(n), Demand(n, 20))
        elif len(live) and rng.random() < 0.2:
            grant = allocator.release(live[:1])
        else:
            grow = live[allocator.length[live] < allocator.geometry.max_len]
            grant = allocator.grow(grow) if len(grow) else None
        if grant is not None:
            execute(memory, allocator, grant)
            after()


def write_values(backing, layout, values, positions=None):
    """Write `values` to `positions` (default: all) of the only row of `layout`, in every cache."""
    numbers = torch.as_tensor(np.asarray(values), dtype=torch.float32, device=backing.device)
    slots = new_slots(layout, layout.lengths)
    slots = slots if positions is None else slots[positions]
    for layer in range(backing.geometry.layers):
        k, v = backing.keys(layer), backing.values(layer)
        kv = numbers[:, None, None].expand(-1, *k.shape[-2:])
        step = 2 * layer * CACHE_STEP
        store(kv + step, kv + step + CACHE_STEP, k, v, slots)


def read_values(backing, layout):
    """Return each row's values; every number of every cache has to say the same."""
    lengths = np.asarray(layout.lengths)
    slots = new_slots(layout, lengths)
    found = None
    for layer in range(backing.geometry.layers):
        for part, cache in enumerate((backing.keys(layer), backing.values(layer))):
            kv = load(cache, slots).flatten(1)
            low, high = kv.amin(1), kv.amax(1)
            assert torch.equal(low, high), "a token's numbers differ"
            value = low - (2 * layer + part) * CACHE_STEP
            assert found is None or torch.equal(value, found), "caches differ"
            found = value
    return np.split(found.cpu().numpy().astype(np.int64), np.cumsum(lengths)[:-1])


class RealMemory(SlotMemory):
    """The conformance suite's model of memory with real memory beside it, checked against it."""

    options: dict = {}  # noqa: RUF012 - set by the test
    made: list = []  # noqa: RUF012

    def __init__(self, allocator):
        super().__init__(allocator)
        self.allocator = allocator
        self.backing = backing_for(allocator, dtype=torch.float32, **self.options)
        self.made.append(self.backing)
        self.space = HostSpace(self.backing)
        self.peak_bytes = 0

    def map(self, grant):
        super().map(grant)
        self.space.save(grant)
        self.backing.map(grant)
        self.space.fetch(grant)

    def map_beside(self, grant):
        """What the step writes is written while the backing's thread is at this."""
        super().map_beside(grant)
        self.backing.map_beside(grant)

    def wait(self):
        super().wait()
        self.backing.wait()

    def copy(self, grant):
        super().copy(grant)
        self.backing.copy(grant)

    def write(self, slots, values):
        """Through the layout of whichever sequence has these slots."""
        super().write(slots, values)
        left = dict(zip(slots.tolist(), values.tolist(), strict=True))
        for row in np.flatnonzero(self.allocator.active).tolist():
            if not left:
                break
            layout = self.allocator.layout(np.array([row]))
            own = self.allocator.addresses(row).tolist()
            positions = [i for i, slot in enumerate(own) if slot in left]
            if positions:
                part = [left.pop(own[i]) for i in positions]
                write_values(self.backing, layout, part, positions)
        assert not left, "a slot was written that no sequence has"

    def resolve(self, layout):
        """Read every live sequence through its layout; count what the system holds."""
        found = super().resolve(layout)
        if len(layout.lengths):
            rows = read_values(self.backing, layout)
            for slots, row in zip(found, rows, strict=True):
                assert np.array_equal(self.values[slots], row), "memory differs from the model"
        held, told = self.backing.resident_bytes(), expected_bytes(self.allocator)
        if self.options.get("mode") == "demand":
            assert held <= told
        else:
            assert held == told, f"{held} bytes are resident, the allocator says {told}"
            assert 0 <= held - self.backing.committed_bytes < OS_PAGE_BYTES
        self.peak_bytes = max(self.peak_bytes, held)
        return found


def open_backing(name="virtual-alias", **options):
    allocator = ALLOCATORS[name]()
    return allocator, backing_for(allocator, dtype=torch.float32, **options)
