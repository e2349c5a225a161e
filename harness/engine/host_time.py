"""Host time spent in the allocator, measured around each call."""

from __future__ import annotations

from time import perf_counter

from allocators.base import Allocator, Demand, Grant, IntArray, Prompt


class TimedAllocator:
    """Forwards the calls that the engine makes on its way and adds up the seconds they take."""

    def __init__(self, allocator: Allocator) -> None:
        self.inner = allocator
        self.host_s = 0.0

    def admit(self, seqs: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        start = perf_counter()
        grant = self.inner.admit(seqs, prompt, demand)
        self.host_s += perf_counter() - start
        return grant

    def lookup(self, prompt: Prompt) -> int:
        start = perf_counter()
        hit = self.inner.lookup(prompt)
        self.host_s += perf_counter() - start
        return hit

    def grow(self, seqs: IntArray, n: int = 1) -> Grant | None:
        start = perf_counter()
        grant = self.inner.grow(seqs, n)
        self.host_s += perf_counter() - start
        return grant

    def quiet_steps(self, seqs: IntArray, at_most: int) -> int:
        start = perf_counter()
        steps = self.inner.quiet_steps(seqs, at_most)
        self.host_s += perf_counter() - start
        return steps

    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        start = perf_counter()
        grant = self.inner.fork(parent, children, demand)
        self.host_s += perf_counter() - start
        return grant

    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        start = perf_counter()
        grant = self.inner.reassign(rows, parents)
        self.host_s += perf_counter() - start
        return grant

    def truncate(self, seq: int, n: int) -> Grant:
        start = perf_counter()
        grant = self.inner.truncate(seq, n)
        self.host_s += perf_counter() - start
        return grant

    def suspend(self, seqs: IntArray, ticket: int) -> Grant | None:
        start = perf_counter()
        grant = self.inner.suspend(seqs, ticket)
        self.host_s += perf_counter() - start
        return grant

    def resume(self, seqs: IntArray, ticket: int) -> Grant | None:
        start = perf_counter()
        grant = self.inner.resume(seqs, ticket)
        self.host_s += perf_counter() - start
        return grant

    def release(self, seqs: IntArray) -> Grant:
        start = perf_counter()
        grant = self.inner.release(seqs)
        self.host_s += perf_counter() - start
        return grant
