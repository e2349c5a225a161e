"""Drives `Virtual` by a recorded log's own admissions, lengths, preemptions and ends.

Only the public protocol is called; what is reported comes from the allocator's grants, executed on
a table of its own here, and is then held against what the allocator says of itself.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from allocators.base import Demand, Geometry, Grant, IntArray, Prompt
from allocators.virtual import PAGE_BYTES, Virtual
from tests.allocators.virtual.slow_manager import Shape, Work
from tests.allocators.virtual.step_logs import Setup

PAGE_SIZES = {size: name for name, size in PAGE_BYTES.items()}


class Unhesitating(Virtual):
    """Grows whenever memory suffices, as where a scheduler counts on what is not released yet.

    With late release the original's scheduler takes the groups of those that it has just
    preempted for free, though they keep them over this iteration.  The protocol has no way to say
    that, and by the rules growth would be refused.
    """

    def _may_grow(self, rows: IntArray, lengths: IntArray, n: int, copies: int) -> bool:
        return int(self._more(lengths, n).sum()) <= self.available


def virtual(
    shape: Shape, groups: int, *, background: bool, deferred: bool, kind: type[Virtual] = Virtual
) -> Virtual:
    """Build the allocator for a pool of so many page-groups, under the original's rules."""
    geometry = Geometry(
        capacity_tokens=1, max_seqs=shape.slots, max_len=shape.max_len, layers=shape.layers,
        kv_heads=shape.kv_heads, head_dim=shape.head_dim,
    )  # fmt: skip
    pool_bytes = groups * shape.group_pages * shape.page_bytes
    return kind(
        replace(geometry, capacity_tokens=-(-pool_bytes // geometry.bytes_per_token)),
        rules="vattention",
        admission="vattention",
        page_size=PAGE_SIZES[shape.page_bytes],
        layout="sliced" if shape.one_tensor_for_all_layers else "per_layer",
        sharing="copy",  # the original shares nothing
        deferred=deferred,
        background=background,
    )


class Memory:
    """Which physical page-groups are mapped in each range, by the grants alone."""

    def __init__(self, allocator: Virtual) -> None:
        self._allocator = allocator
        self._columns: list[list[int]] = [[] for _ in range(allocator.geometry.max_seqs)]
        self._free = set(allocator.pages.free.pages().tolist())

    @property
    def mapped(self) -> list[int]:
        return [len(columns) for columns in self._columns]

    def execute(self, grant: Grant, work: Work) -> None:
        """Unmap from the end of ranges, map free page-groups behind it, and count both."""
        assert not len(grant.copies), "nothing is shared, so nothing is copied"
        for slot, column, page in grant.unmaps.tolist():
            assert column == len(self._columns[slot]) - 1, "unmapped elsewhere than at the end"
            assert self._columns[slot].pop() == page
            self._free.add(page)
        for slot, column, page in grant.maps.tolist():
            assert column == len(self._columns[slot]), "mapped elsewhere than behind the end"
            self._columns[slot].append(page)
            self._free.remove(page)
        work.maps += len(grant.maps)
        work.unmaps += len(grant.unmaps)

    def check(self) -> None:
        """Compare with the allocator's own counts."""
        pages = self._allocator.pages
        assert self.mapped == pages.count.tolist()
        assert sorted(self._free) == sorted(pages.free.pages().tolist())


class Replay:
    """One run; `lines` repeats it and yields the same fields as the log."""

    def __init__(self, setup: Setup, log: Iterable[dict[str, Any]]) -> None:
        self._setup, self._shape, self._log = setup, setup.shape, log
        # The original's synchronous step always unmaps what is idle, whatever it was told.
        self._allocator = virtual(
            setup.shape,
            setup.groups,
            background=setup.background,
            deferred=setup.background and setup.deferred,
            kind=Unhesitating if setup.late_release else Virtual,
        )
        self._memory = Memory(self._allocator)
        self._demands = {id: Demand(prompt, output) for id, prompt, output in setup.requests}
        #: prompt and generated tokens of each request
        self._tokens = {id: prompt for id, prompt, _ in setup.requests}
        self._idle_rows = list(range(setup.shape.slots))
        self._row: dict[int, int] = {}  # request -> row
        self._leaving: list[int] = []  # preempted, but released an iteration later
        self._critical, self._background = Work(), Work()

    def lines(self) -> Iterator[dict[str, Any]]:
        for theirs in self._log:
            yield self._step(theirs)

    def _step(self, theirs: dict[str, Any]) -> dict[str, Any]:
        allocator = self._allocator
        free_seen = int(allocator.available)
        self._plan(theirs)
        dropped = self._grow(theirs)
        grants = allocator.begin_step()
        self._memory.execute(grants.before, self._critical)
        mapped_critical = self._memory.mapped
        self._memory.execute(grants.beside, self._background)
        self._memory.check()
        allocator.check()
        rows = [self._row[request] for request in theirs["requests"]]
        slot_lengths = self._slot_lengths()
        mapped = self._memory.mapped
        line = {
            "step": theirs["step"],
            "kind": "prefill" if theirs["admitted"] else "decode",
            "free_seen": free_seen,
            "requests": theirs["requests"],
            "slots": allocator.range_of[rows].tolist(),
            "lengths": allocator.length[rows].tolist(),
            "slot_lengths": slot_lengths,
            "mapped": mapped,
            "mapped_critical": mapped_critical,
            "free": len(allocator.pages.free),
            "cached": sum(m for m, n in zip(mapped, slot_lengths, strict=True) if not n),
            "map_critical": self._critical.maps,
            "unmap_critical": self._critical.unmaps,
            "map_background": self._background.maps,
            "unmap_background": self._background.unmaps,
            "calls_critical": self._calls(self._critical),
            "calls_background": self._calls(self._background),
            "admitted": theirs["admitted"],
            "preempted": theirs["preempted"],
            "oom": theirs["oom"],
            "oom_preempted": dropped,
            "ended": theirs["ended"],
        }
        if not theirs["admitted"]:  # a prefill adds no token
            for request in theirs["requests"]:
                self._tokens[request] += 1
        # What an end would do to memory counts for the next iteration.
        self._critical, self._background = Work(), Work()
        self._leave(theirs["ended"], allocator.release)
        return line

    # -- what the log decides ------------------------------------------------------------------
    def _plan(self, theirs: dict[str, Any]) -> None:
        """Preempt and admit as the log does; a late release comes with the next iteration."""
        self._preempt(self._leaving)
        self._leaving = list(theirs["preempted"])
        if not self._setup.late_release:
            self._preempt(self._leaving)
            self._leaving = []
        for request in theirs["admitted"]:
            row = self._row[request] = self._idle_rows.pop()
            prompt = Prompt(self._tokens[request])
            grant = self._allocator.admit(np.array([row]), prompt, self._demands[request])
            self._must(grant, f"request {request} was not admitted")

    def _grow(self, theirs: dict[str, Any]) -> list[int]:
        """Let the batch grow to the lengths of this iteration; return who was dropped for it.

        Where their step threw, growth is refused here before anything happened.  Theirs had by
        then backed the slots below the one that failed, and taken back memory for that; so this
        is repeated before the next request is dropped, or the next attempt would take back other
        groups than theirs did.
        """
        batch, dropped = sorted({*theirs["requests"], *theirs["oom_preempted"]}), []
        for _ in range(theirs["oom"]):
            grant = self._allocator.grow(self._short(batch))
            assert grant is None, f"step {theirs['step']}: growth was granted, theirs threw"
            self._fail(batch)
            if self._leaving:
                self._preempt([self._leaving.pop()])
                continue
            dropped.append(theirs["oom_preempted"][len(dropped)])
            batch.remove(dropped[-1])
            self._preempt(dropped[-1:])
        short = self._short(batch)
        if len(short):
            self._must(self._allocator.grow(short), f"step {theirs['step']}: growth was refused")
        return dropped

    def _fail(self, batch: list[int]) -> None:
        """Do what their step had done when it threw: back slots in order while memory lasts."""
        allocator, shape = self._allocator, self._shape
        mapped = self._memory.mapped
        slots = {int(allocator.range_of[self._row[request]]): request for request in batch}
        needed = [-(-n // shape.group_tokens) for n in self._slot_lengths()]
        for slot, request in slots.items():
            needed[slot] = -(-self._tokens[request] // shape.group_tokens)
        spare = len(allocator.pages.free)
        spare += sum(max(0, m - n) for m, n in zip(mapped, needed, strict=True))
        backed = [slots[slot] for slot in slots if needed[slot] <= mapped[slot]]
        for slot in sorted(set(slots).difference(allocator.range_of[self._rows(backed)].tolist())):
            if needed[slot] - mapped[slot] > spare:
                break
            spare -= min(needed[slot], shape.most_groups) - mapped[slot]
            backed.append(slots[slot])
        short = self._short(sorted(backed))
        if len(short):
            self._must(allocator.grow(short), "growth that fits was refused")
        thread = allocator.thread
        kept = thread.threaded, thread.deferred
        thread.threaded, thread.deferred = False, True  # theirs was never started
        grants = allocator.begin_step()
        thread.threaded, thread.deferred = kept
        self._memory.execute(grants.before, self._critical)
        assert not len(grants.beside.maps)
        assert not len(grants.beside.unmaps)

    def _short(self, requests: list[int]) -> IntArray:
        """Return the rows that are not as long as they have to be; prompts are, at first."""
        rows = self._rows(requests)
        return rows[self._allocator.length[rows] < [self._tokens[request] for request in requests]]

    # -- bookkeeping ---------------------------------------------------------------------------
    def _must(self, grant: Grant | None, otherwise: str) -> None:
        assert grant is not None, otherwise
        self._memory.execute(grant, self._critical)

    def _preempt(self, requests: list[int]) -> None:
        self._leave(requests, self._allocator.preempt)

    def _leave(self, requests: list[int], call: Callable[[IntArray], Grant]) -> None:
        if requests:
            rows = self._rows(requests)
            self._memory.execute(call(rows), self._critical)
            self._idle_rows.extend(rows.tolist())
            for request in requests:
                del self._row[request]

    def _rows(self, requests: list[int]) -> IntArray:
        return np.array([self._row[request] for request in requests], dtype=np.int64)

    def _slot_lengths(self) -> list[int]:
        lengths = [0] * self._shape.slots
        for row in self._row.values():
            lengths[int(self._allocator.range_of[row])] = int(self._allocator.length[row])
        return lengths

    def _calls(self, work: Work) -> dict[str, int]:
        one_by_one = self._allocator.page_bytes == PAGE_BYTES["2MiB"]
        a_group = self._allocator.pages_per_group
        access, unmap = (a_group, a_group) if one_by_one else (0, 0)
        return {
            "map": work.maps * a_group, "access": work.maps * access, "unmap": work.unmaps * unmap
        }  # fmt: skip
