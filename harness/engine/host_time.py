"""Host time spent in the allocator, measured around each of its decisions, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from time import perf_counter
from typing import Any, cast

from allocators.base import Allocator
from harness.engine.answers import check_answer

#: the calls of the protocol that a scheduler makes on its way, which are timed
DECISIONS = (
    "admit", "lookup", "grow", "leading", "quiet_steps", "lone_steps", "take_steps", "begin_step",
    "truncate", "fork", "reassign", "release", "preempt", "suspend", "resume",
)  # fmt: skip
#: those of them that the base class answers by another
PASSED_ON = {"lone_steps": "quiet_steps", "take_steps": "grow"}
#: what else the protocol has: its views, checks and attributes, some of them set by `__init__`
REST = tuple(
    name
    for name in (*dir(Allocator), "geometry", "length", "active", "range_pages", "range_tokens")
    if name not in DECISIONS and not name.startswith("_")
)


class HostTime:
    """`spent_s`: the seconds that the decisions of a watched allocator have taken so far."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def watch(self, allocator: Allocator) -> Allocator:
        """Return the allocator with its decisions timed; all else of it is as it was."""
        return cast(Allocator, _Watched(allocator, self))

    def timed(self, name: str, decide: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, by position only, so that it also adds the seconds it takes.

        One that raises adds none.  What the call `name` may not answer raises `WrongAnswer`.
        """

        def call(*args: Any) -> Any:
            start_s = perf_counter()
            answer = decide(*args)
            self.spent_s += perf_counter() - start_s
            check_answer(name, answer)
            return answer

        return call


class _Watched:
    """Stands for an allocator.  Its decisions are attributes, so that no call takes a detour."""

    def __init__(self, allocator: Allocator, host_time: HostTime) -> None:
        self._allocator = allocator
        for name in DECISIONS:
            decide = getattr(allocator, name)
            # Where the base class only passes it on, what the policy itself answered is named.
            passed_on = getattr(decide, "__func__", None) is getattr(Allocator, name)
            named = PASSED_ON.get(name, name) if passed_on else name
            setattr(self, name, host_time.timed(named, decide))


for _name in REST:
    setattr(_Watched, _name, property(attrgetter(f"_allocator.{_name}")))
