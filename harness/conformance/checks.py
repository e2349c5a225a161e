"""Checks of one allocator from outside, one function an invariant.  Each raises `Violation`."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import numpy as np

from allocators.base import Allocator, Grant, IntArray, StepGrants, Usage
from allocators.layered.base import LayeredAllocator
from harness.conformance.memory import Place, SlotMemory, require

CATEGORIES = ("token", "reserved", "internal", "expired", "round_up", "cached", "free")
NOBODY: IntArray = np.empty(0, dtype=np.int64)


def snapshot(
    allocator: Allocator, rows: IntArray, finals: IntArray, accounts: bool = True
) -> tuple[Any, ...]:
    """Everything about the state that can be observed, as a value to compare."""
    return (
        allocator.length.tolist(),
        allocator.active.tolist(),
        [[of.tolist() for of in slots_of(allocator, row)] for row in rows.tolist()],
        allocator.balance(),
        usage_by_step(allocator.usage(rows, finals)) if accounts else None,
        allocator.headroom(rows) if len(rows) else None,
    )


def slots_of(allocator: Allocator, row: int) -> list[IntArray]:
    """Return the slot of each position, in each layer group."""
    if not isinstance(allocator, LayeredAllocator):
        return [allocator.addresses(row)]
    layer_groups = range(len(allocator.geometry.layer_groups))
    return [allocator.layer_slots(row, layer_group) for layer_group in layer_groups]


def usage_by_step(usage: Usage) -> list[tuple[int, ...]]:
    """One tuple of all columns for each step."""
    columns = [np.asarray(getattr(usage, f.name)).tolist() for f in fields(usage)]
    return list(zip(*columns, strict=True))


def equal_grants(a: Grant, b: Grant) -> bool:
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return all(mine is its or np.array_equal(mine, its) for mine, its in pairs)


def told(grant: Grant | None) -> str:
    """Return what is in a grant, in one line."""
    if grant is None:
        return "None"
    found = ((f.name, np.asarray(getattr(grant, f.name)).tolist()) for f in fields(grant))
    return ", ".join(f"{name} {value}" for name, value in found if value) or "nothing"


def conservation(allocator: Allocator, capacity: int, memory: SlotMemory) -> None:
    """Active, cached and free sum to what they summed to at first; maps agree with them."""
    active, cached, free = allocator.balance()
    require(
        min(active, cached, free) >= 0, "conservation", f"negative balance {allocator.balance()}"
    )
    require(
        active + cached + free == capacity,
        "conservation",
        f"{active} active + {cached} cached + {free} free is not {capacity}",
    )
    if memory.maps_pages:
        pages = memory.mapped_units()
        require(
            pages == active + cached,
            "mapping",
            f"{pages} page-groups are mapped, {active} active + {cached} cached are declared",
        )


def usage_adds_up(
    allocator: Allocator, rows: IntArray, finals: IntArray, token: int, expired: int
) -> None:
    """The categories sum to the capacity; so many bytes hold tokens, or are expired."""
    usage = allocator.usage(rows, finals)
    split = {name: int(getattr(usage, name)[0]) for name in CATEGORIES}
    require(min(split.values()) >= 0, "usage", f"a negative share of memory: {split}")
    total, capacity = sum(split.values()), allocator.geometry.capacity_bytes
    require(total == capacity, "usage", f"{split} sum to {total} bytes of {capacity}")
    require(split["token"] == token, "usage", f"{split['token']} token bytes, not {token}")
    # A dead slot that its sequence will write again, as that of a ring, is reserved.
    least, got = expired - split["reserved"], split["expired"]
    require(least <= got <= expired, "usage", f"{got} expired bytes, {expired} are held and dead")


def nothing_is_held(allocator: Allocator) -> None:
    """When nobody lives no unit is active, and all memory is free or declared as cached."""
    active, _, _ = allocator.balance()
    require(active == 0, "total release", f"{active} units are active and nobody lives")
    usage = allocator.usage(NOBODY, NOBODY)
    left = int(usage.free[0] + usage.cached[0])
    require(
        left == allocator.geometry.capacity_bytes,
        "total release",
        f"only {left} bytes are free or cached and nobody lives",
    )


def headroom_is_exact(allocator: Allocator, rows: IntArray) -> None:
    """`grow(rows, headroom)` is granted, one more is not, and one is refused iff it is 0."""
    most = allocator.geometry.max_len - int(allocator.length[rows].max())
    headroom = allocator.headroom(rows)
    require(0 <= headroom <= most, "headroom", f"{headroom} is not from 0 to {most}")

    def granted(n: int) -> bool:
        return copy.deepcopy(allocator).grow(rows.copy(), n) is not None

    if headroom:
        require(granted(headroom), "headroom", f"{headroom} is promised and refused")
        require(granted(1), "headroom", f"{headroom} is promised and not even one is granted")
    if headroom < most:
        require(not granted(headroom + 1), "headroom", f"{headroom + 1} is granted, not promised")


def leading_is_exact(allocator: Allocator, rows: IntArray) -> None:
    """Of rows that were refused a slot so many leading ones are granted it, and not one more."""
    leading = allocator.leading(rows)
    if leading is None:
        return
    require(0 <= leading < len(rows), "headroom", f"{leading} of {len(rows)} refused rows lead")
    for n in {leading, leading + 1} - {0}:
        granted = copy.deepcopy(allocator).grow(rows[:n].copy(), 1) is not None
        require(granted == (n == leading), "headroom", f"{leading} rows lead, {n} do otherwise")


def can_grow_soon(allocator: Allocator, rows: IntArray) -> bool:
    """Say whether they can grow by a slot: now, or in the next step if others grew in this one."""
    if allocator.headroom(rows):
        return True
    later = copy.deepcopy(allocator)
    later.begin_step()
    return later.headroom(rows) > 0


def quiet_steps_are_honest(
    allocator: Allocator, rows: IntArray, finals: IntArray, at_most: int
) -> None:
    """Quiet steps taken at once need no operation, and end and account as taken one by one.

    Nor do their `begin_step`, the first of which may end a step that has been planned in part.
    """
    most = min(at_most, allocator.geometry.max_len - int(allocator.length[rows].max()))
    counts = {}
    for name in ("quiet_steps", "lone_steps"):
        counts[name] = getattr(allocator, name)(rows, most)
        require(0 <= counts[name] <= most, "quiet steps", f"{counts[name]} is not from 0 to {most}")
    for steps in set(counts.values()) - {0}:
        _are_honest(allocator, rows, finals, steps)


def _are_honest(allocator: Allocator, rows: IntArray, finals: IntArray, steps: int) -> None:
    finals = np.maximum(finals, allocator.length[rows] + steps)
    at_once, single = copy.deepcopy(allocator), copy.deepcopy(allocator)
    _grows_quietly(at_once, rows, steps, f"{steps} at once")
    accounts = usage_by_step(at_once.usage(rows, finals, steps))
    require(len(accounts) == steps, "usage", f"{len(accounts)} rows for {steps} steps")
    _begins_quietly(single, f"before {steps}")  # what was planned is a step of its own
    for step, account in enumerate(accounts):
        _grows_quietly(single, rows, 1, f"step {step + 1} of {steps}")
        alone = usage_by_step(single.usage(rows, finals))[0]
        require(alone == account, "usage", f"step {step + 1} of {steps}: {account}, alone {alone}")
    live = np.flatnonzero(allocator.active)
    # With a window it is another account whether the last step computed one token or all.
    accounts = not allocator.geometry.layer_groups
    after = [snapshot(a, live, np.maximum(a.length[live], 1), accounts) for a in (at_once, single)]
    require(after[0] == after[1], "quiet steps", f"{steps} at once and one by one end differently")


def _grows_quietly(allocator: Allocator, rows: IntArray, n: int, what: str) -> None:
    grant = allocator.take_steps(rows.copy(), n) if n > 1 else allocator.grow(rows.copy(), 1)
    require(
        grant is not None and grant.is_empty, "quiet steps", f"{what}: grow gives {told(grant)}"
    )
    _begins_quietly(allocator, what)


def _begins_quietly(allocator: Allocator, what: str) -> None:
    for when, grant in zip(StepGrants._fields, allocator.begin_step(), strict=True):
        require(grant.is_empty, "quiet steps", f"{what}: {told(grant)} {when} it")


def beside_is_apart(memory: SlotMemory, used: set[Place], beside: Grant) -> None:
    """What a step uses is mapped when it computes, and stays so; `used` are places."""
    unmapped = used.difference(memory.mapped)
    for place, page in memory.entries(beside.maps):
        text = f"page-group {page} is mapped at {place} beside the step that uses it"
        require(place not in unmapped, "causal", text)
    require(not unmapped, "mapping", f"{sorted(unmapped)} are in use but not mapped")
    for place, page in memory.entries(beside.unmaps):
        text = f"page-group {page} is unmapped at {place} beside the step that uses it"
        require(place not in used, "causal", text)


def beside_is_not_used_again(memory: SlotMemory, beside: Grant, alias: bool) -> None:
    """No page-group is still to be unmapped that this step has mapped elsewhere and written.

    Where nothing is aliased it may not even have been mapped.
    """
    for place, page in memory.entries(beside.unmaps):
        elsewhere = memory.step_maps.get(page, set()) - {place}
        again = elsewhere and (page in memory.step_writes or not alias)
        text = f"page-group {page} is used again before it is unmapped at {place}"
        require(not again, "causal", text)
