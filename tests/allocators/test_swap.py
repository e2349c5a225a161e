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
        self.gangs, self.tickets, self.next = {}, {}, 0
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

    def write(self, seq, start):
        for position, slot in enumerate(self.allocator.addresses(seq).tolist()):
            if position >= start:
                value = (self.next, position)
                self.device[slot] = value
                self.expected[seq] = [*self.expected[seq][:position], value]
        self.next += 1

    def admit(self, rng):
        free = np.flatnonzero(~self.allocator.active)
        gang = int(rng.integers(1, 4))
        if len(free) < gang:
            return
        seqs = free[:gang]
        prompt = int(rng.integers(1, 40)) * self.scale
        grant = self.allocator.admit(seqs, Prompt(prompt), Demand(prompt, 40 * self.scale))
        if grant is None:
            return
        self.expected[int(seqs[0])] = []
        self.write(int(seqs[0]), 0)
        self.execute(grant)
        for seq in seqs.tolist():
            self.expected[seq] = list(self.expected[int(seqs[0])])
        self.gangs[self.next] = seqs

    def grow(self):
        if not self.gangs:
            return
        seqs = np.concatenate(list(self.gangs.values()))
        seqs = seqs[self.allocator.length[seqs] < self.allocator.geometry.max_len - 1]
        before = self.allocator.length[seqs].copy()
        grant = self.allocator.grow(seqs) if len(seqs) else None
        if grant is not None:
            self.execute(grant)
            for seq, start in zip(seqs.tolist(), before.tolist(), strict=True):
                self.write(seq, start)

    def suspend(self, rng):
        if not self.gangs:
            return
        gang = list(self.gangs)[int(rng.integers(len(self.gangs)))]
        seqs = self.gangs[gang]
        slots = np.concatenate([self.allocator.addresses(seq) for seq in seqs.tolist()])
        grant = self.allocator.suspend(seqs, gang)
        if grant is None:
            self.seen["host_full"] += 1
            return
        self.seen["out"] += 1
        self.seen["shared"] += len(np.unique(slots)) < len(slots)
        self.execute(grant)
        self.tickets[gang] = [self.expected.pop(seq) for seq in self.gangs.pop(gang).tolist()]

    def resume(self, rng):
        free = np.flatnonzero(~self.allocator.active)
        if not self.tickets:
            return
        ticket = list(self.tickets)[int(rng.integers(len(self.tickets)))]
        if len(free) < len(self.tickets[ticket]):
            return
        seqs = free[::-1][: len(self.tickets[ticket])].copy()
        grant = self.allocator.resume(seqs, ticket)
        if grant is None:
            self.seen["refused_back"] += 1
            return
        self.seen["in"] += 1
        self.execute(grant)
        self.expected.update(zip(seqs.tolist(), self.tickets.pop(ticket), strict=True))
        self.gangs[ticket] = seqs

    def release(self, rng):
        if self.gangs:
            gang = list(self.gangs)[int(rng.integers(len(self.gangs)))]
            for seq in self.gangs[gang].tolist():
                del self.expected[seq]
            self.execute(self.allocator.release(self.gangs.pop(gang)))

    def check(self):
        self.allocator.check()
        for seq, values in self.expected.items():
            slots = self.allocator.addresses(seq).tolist()
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
        while world.gangs:
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
    seqs = np.array([0])
    allocator.admit(seqs, Prompt(5), Demand(5, 5))
    assert allocator.suspend(seqs, 1) is None
    assert allocator.length[0] == 5


def test_a_policy_without_swap_says_so():
    from allocators.base import Allocator

    with pytest.raises(Unsupported, match="Paged cannot swap"):
        Allocator.suspend(Paged(GEOMETRY), np.array([0]), 1)
