"""Steps of a trial: what waits until a step computes, and what is done before and beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from allocators.base import NO_MAPS, Allocator, Grant, IntArray, StepGrants
from allocators.layered.base import LayeredAllocator
from harness.conformance import checks
from harness.conformance.audit import Audit, Make
from harness.conformance.layered import LayeredMemory
from harness.conformance.memory import SlotMemory, Violation
from harness.engine.answers import WrongAnswer, check_answer

Writes = list[Callable[[], None]]


@dataclass(slots=True)
class Step:
    """What the calls of one step leave for its compute, which does it in this order.

    `rows` are those whose new slots wait to be written.
    """

    granted: int = 0
    rows: set[int] = field(default_factory=set)
    new_slots: Writes = field(default_factory=list)  # prompts, and what `grow` gave
    copies: Writes = field(default_factory=list)  # of the prompts
    private: Writes = field(default_factory=list)  # behind the prompts


def memory_of(allocator: Allocator) -> SlotMemory:
    """Return a model of the memory that an allocator's grants are executed on."""
    layered = isinstance(allocator, LayeredAllocator)
    return LayeredMemory(allocator) if layered else SlotMemory(allocator)


class Steps(Audit):
    """An audit of whole steps: calls, `begin_step`, the writes, and what goes on beside them."""

    def __init__(self, make: Make) -> None:
        self._step = Step()
        super().__init__(make, memory_of)

    @property
    def untouched(self) -> IntArray:
        """The live rows that may still take part in the step which is being planned."""
        return np.array([row for row in self.tokens if row not in self._step.rows], dtype=np.int64)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let the calls within be planned as one step; outside, each that is granted is one.

        What has got slots in a step has its say: no other call of that step may name it.
        """
        if self.planning:
            raise ValueError("a step is being planned already")
        self.planning = True
        try:
            yield
        finally:
            self.planning = False
        self._compute()

    # -- within a step -----------------------------------------------------------------------
    def _check_untouched(self, rows: IntArray) -> None:
        again = self._step.rows.intersection(rows.tolist())
        if again:
            raise ValueError(f"rows {sorted(again)} have got slots in this step already")

    def _execute(self, grant: Grant | None) -> bool:
        """Execute a grant of any call but `admit`; say whether there is one."""
        if grant is None:
            return False
        self.memory.map(grant)
        self.memory.copy(grant)
        return True

    def _settle(self) -> None:
        """End a granted call; one that stands alone is a step."""
        self._step.granted += 1
        if not self.planning:
            self._compute()

    # -- the end of a step -------------------------------------------------------------------
    def _compute(self) -> None:
        step, self._step = self._step, Step()
        self.counts["bursts"] += step.granted > 1
        before, beside = self._ask_step()
        memory = self.memory
        memory.map(before)
        places = memory.places(self.live)
        checks.beside_is_apart(memory, places, beside)
        memory.map_beside(beside)
        for write in (*step.new_slots, *step.copies, *step.private):
            write()
        checks.beside_is_not_used_again(memory, beside, alias=self.allocator.alias)
        memory.wait()
        self.verify()

    def _ask_step(self) -> StepGrants:
        """Ask what the step takes; it must equal the twin's answer, and only unmap and map."""
        self.history.append(("begin_step", (), "fails"))
        answer = self.allocator.begin_step()
        try:
            check_answer("begin_step", answer)
        except WrongAnswer as error:
            raise Violation(f"protocol: {error}") from error
        for grant in answer:
            rest = replace(grant, maps=NO_MAPS, unmaps=NO_MAPS, converted=NO_MAPS)
            if not rest.is_empty or rest.cached_tokens:
                text = (
                    f"begin_step may only unmap, convert and map, not ask for {checks.told(rest)}"
                )
                raise Violation(f"protocol: {text}")
        twin = self.twin.begin_step()
        if not all(map(checks.equal_grants, answer, twin)):
            mine, its = ([*map(checks.told, each)] for each in (answer, twin))
            raise Violation(
                f"deterministic: a twin that saw the same grants begins the step with {its}, "
                f"not {mine}"
            )
        before, beside = answer
        asked = {
            "before_maps": len(before.maps), "before_unmaps": len(before.unmaps),
            "beside_maps": len(beside.maps), "beside_unmaps": len(beside.unmaps),
        }  # fmt: skip
        self.counts.update(asked)
        self.counts["conversions"] += len(before.converted) + len(beside.converted)
        self.counts["maps"] += asked["before_maps"] + asked["beside_maps"]
        self.counts["unmaps"] += asked["before_unmaps"] + asked["beside_unmaps"]
        told = ", ".join(f"{n} {name}" for name, n in asked.items() if n)
        self.history[-1] = "begin_step", (), told or "nothing"
        return answer
