"""Swaps: tokens come back elsewhere, and each number crosses once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from allocators.base import Demand, Grant, Prompt
from kernels import new_slots
from kernels.memory.host_space import HostSpace
from tests.kernels.memory.cases import execute, open_backing, read_values, write_values

ONE = np.array([0])


def test_swapped_out_tokens_come_back_elsewhere():
    for name in ("paged-7", "contiguous-max", "virtual-sliced-rest"):
        allocator, backing = open_backing(name)
        with backing:
            execute(backing, allocator, allocator.admit(ONE, Prompt(20), Demand(20, 9)))
            write_values(backing, allocator.layout(ONE), np.arange(20) + 100)
            g = allocator.geometry
            host = torch.full((2 * g.layers, 30, g.kv_heads, g.head_dim), torch.nan)
            # Neither in order nor side by side.
            at = np.concatenate([np.arange(25, 29), np.arange(9, 20), np.arange(5)])
            backing.save(new_slots(allocator.layout(ONE), [20]), host, at)
            execute(backing, allocator, allocator.release(ONE))
            two = np.array([2])
            for rows in (np.array([1]), two):
                execute(backing, allocator, allocator.admit(rows, Prompt(20), Demand(20, 9)))
                write_values(backing, allocator.layout(rows), np.arange(20))
            backing.restore(new_slots(allocator.layout(two), [20]), host, at)
            kept, back = read_values(backing, allocator.layout(np.array([1, 2])))
            assert kept.tolist() == list(range(20))
            assert back.tolist() == list(range(100, 120))


class Written(TorchDispatchMode):
    """Counts the numbers that operators write or make."""

    VIEWS = ("view", "slice", "select", "as_strided", "unbind", "detach", "alias", "empty")

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        found = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        if name in ("index_put_", "index_put", "_index_put_impl_"):
            self.numbers += args[2].numel()
        elif isinstance(found, torch.Tensor) and found.is_floating_point():
            self.numbers += 0 if name.startswith(self.VIEWS) else found.numel()
        return found


@pytest.mark.parametrize("name", ["paged-7", "virtual-sliced-rest"])
def test_what_is_swapped_is_gathered_and_sent_once(name):
    """Through a second buffer it would cross host memory twice."""
    allocator, backing = open_backing(name)
    backing.geometry = replace(backing.geometry, host_tokens=64)
    g = backing.geometry
    with backing:
        execute(backing, allocator, allocator.admit(ONE, Prompt(20), Demand(20, 9)))
        first = 0
        if allocator.pages_per_group:
            first = int(backing.page_map.at.max()) * g.page_tokens
        n = min(5, g.page_tokens)
        space = HostSpace(backing)
        space._space()
        numbers = 2 * g.layers * n * g.kv_heads * g.head_dim
        with Written() as out:
            space.save(Grant(swaps_out=np.array([[first, 3, n]])))
        with Written() as back:
            space.fetch(Grant(swaps_in=np.array([[first, 3, n]])))
    assert out.numbers == 2 * numbers, "gathered, and sent"
    assert back.numbers == numbers, "scattered: there is nothing to send to the CPU itself"
