"""Swapping: what comes back from host memory is what was there, shared where it was shared."""

from dataclasses import replace

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt, Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual

GEOMETRY = Geometry(400, 24, 200, layers=1, kv_heads=1, head_dim=64, host_tokens=150)
# 64 KiB a page is 512 of these tokens, so the virtual family gets a longer world.
LONG = replace(GEOMETRY, capacity_tokens=16 * 512, max_len=2000, host_tokens=6 * 512)

CASES = {
    "paged": lambda: Paged(GEOMETRY, block_size=8),
    "paged_hash": lambda: Paged(GEOMETRY, block_size=8, prefix_index="hash"),
    "virtual": lambda: Virtual(LONG, page_size="64KiB"),
    "virtual_copy": lambda: Virtual(LONG, page_size="64KiB", sharing="copy", deferred=False),
    "max": lambda: Contiguous(replace(GEOMETRY, capacity_tokens=900)),
    "oracle": lambda: Contiguous(GEOMETRY, reservation="oracle", placement="best_fit"),
    "grow": lambda: Contiguous(GEOMETRY, reservation="grow"),
}


class World:
    """Device and host memory as dictionaries, and what each sequence should read."""

    def __init__(self, allocator, scale):
        self.allocator, self.scale = allocator, scale
        self.device, self.host, self.expected = {}, {}, {}
        self.groups, self.tickets, self.next = {}, {}, 0
        self.seen = dict.fromkeys(("out", "in", "host_full", "refused_back", "shared"), 0)

    def execute(self, grant):
        for device, host, n in grant.swaps_out.tolist():
            self.host.update({host + i: self.device.get(device + i) for i in range(n)})
        for device, host, n in grant.swaps_in.tolist():
            self.device.update({device + i: self.host.pop(host + i) for i in range(n)})
        moved = {
            target + i: self.device.get(source + i)
            for source, target, n in grant.copies.tolist()
            for i in range(n)
        }
        self.device.update(moved)

    def write(self, row, start):
        for grant in self.allocator.begin_step():
            self.execute(grant)
        for position, slot in enumerate(self.allocator.addresses(row).tolist()):
            if position >= start:
                value = (self.next, position)
                self.device[slot] = value
                self.expected[row] = [*self.expected[row][:position], value]
        self.next += 1

    def admit(self, rng):
        free = np.flatnonzero(~self.allocator.active)
        size = int(rng.integers(1, 4))
        if len(free) < size:
            return
        rows = free[:size]
        prompt = int(rng.integers(1, 40)) * self.scale
        grant = self.allocator.admit(rows, Prompt(prompt), Demand(prompt, 40 * self.scale))
        if grant is None:
            return
        self.allocator.begin_step()
        self.expected[int(rows[0])] = []
        self.write(int(rows[0]), 0)
        self.execute(grant)
        for row in rows.tolist():
            self.expected[row] = list(self.expected[int(rows[0])])
        self.groups[self.next] = rows

    def grow(self):
        if not self.groups:
            return
        rows = np.concatenate(list(self.groups.values()))
        rows = rows[self.allocator.length[rows] < self.allocator.geometry.max_len - 1]
        before = self.allocator.length[rows].copy()
        grant = self.allocator.grow(rows) if len(rows) else None
        if grant is not None:
            self.execute(grant)
            self.allocator.begin_step()
            for row, start in zip(rows.tolist(), before.tolist(), strict=True):
                self.write(row, start)

    def suspend(self, rng):
        if not self.groups:
            return
        group = list(self.groups)[int(rng.integers(len(self.groups)))]
        rows = self.groups[group]
        slots = np.concatenate([self.allocator.addresses(row) for row in rows.tolist()])
        grant = self.allocator.suspend(rows, group)
        if grant is None:
            self.seen["host_full"] += 1
            return
        self.seen["out"] += 1
        self.seen["shared"] += len(np.unique(slots)) < len(slots)
        self.execute(grant)
        self.tickets[group] = [self.expected.pop(row) for row in self.groups.pop(group).tolist()]

    def resume(self, rng):
        free = np.flatnonzero(~self.allocator.active)
        if not self.tickets:
            return
        ticket = list(self.tickets)[int(rng.integers(len(self.tickets)))]
        if len(free) < len(self.tickets[ticket]):
            return
        rows = free[::-1][: len(self.tickets[ticket])].copy()
        grant = self.allocator.resume(rows, ticket)
        if grant is None:
            self.seen["refused_back"] += 1
            return
        self.seen["in"] += 1
        self.execute(grant)
        self.expected.update(zip(rows.tolist(), self.tickets.pop(ticket), strict=True))
        self.groups[ticket] = rows

    def release(self, rng):
        if self.groups:
            group = list(self.groups)[int(rng.integers(len(self.groups)))]
            for row in self.groups[group].tolist():
                del self.expected[row]
            self.execute(self.allocator.release(self.groups.pop(group)))

    def check(self):
        self.allocator.check()
        for row, values in self.expected.items():
            slots = self.allocator.addresses(row).tolist()
            assert [self.device[slot] for slot in slots] == values


@pytest.mark.parametrize("name", CASES)
def test_what_was_swapped_out_comes_back(name):
    seen = dict.fromkeys(("out", "in", "host_full", "refused_back", "shared"), 0)
    for seed in range(4):
        allocator = CASES[name]()
        world = World(allocator, scale=12 if name.startswith("virtual") else 1)
        rng = np.random.default_rng(seed)
        for _ in range(150):
            action = rng.integers(0, 12)
            if action < 4:
                world.admit(rng)
            elif action < 7:
                world.grow()
            elif action < 10:
                world.suspend(rng)
            elif action == 10:
                world.resume(rng)
            else:
                world.release(rng)
            world.check()
        while world.groups:
            world.release(rng)
        while world.tickets:
            world.resume(rng)
            world.check()
            world.release(rng)
        assert allocator.balance()[0] == 0
        seen = {key: seen[key] + world.seen[key] for key in seen}
    expected = {"out", "in", "host_full"}
    expected |= {"refused_back"}
    expected |= {"shared"} if name in ("paged", "paged_hash", "virtual") else set()
    assert all(seen[key] for key in expected), seen


def test_no_host_memory_refuses_every_suspension():
    allocator = Paged(replace(GEOMETRY, host_tokens=0))
    rows = np.array([0])
    allocator.admit(rows, Prompt(5), Demand(5, 5))
    assert allocator.suspend(rows, 1) is None
    assert allocator.length[0] == 5


def test_a_policy_without_swap_says_so():
    from allocators.base import Allocator

    with pytest.raises(Unsupported, match="Paged cannot swap"):
        Allocator.suspend(Paged(GEOMETRY), np.array([0]), 1)
