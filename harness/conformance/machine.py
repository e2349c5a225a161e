"""The same operations as a Hypothesis state machine, so that a failure shrinks to a short story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import event, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from allocators.base import IntArray
from harness.conformance.driver import Driver, Make
from harness.conformance.memory import require
from harness.conformance.schedule import OPERATIONS, Draw, applies


def state_machine(make: Make, totals: Counter[str]) -> type[RuleBasedStateMachine]:
    """Return a machine that drives what `make` builds; what happened is added to `totals`."""

    class AllocatorMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.driver = Driver(make)
            self._intact = True

        def _do(self, name: str, data: st.DataObject) -> None:
            self._tell(lambda: OPERATIONS[name](self.driver, _drawing(data)))

        def _tell(self, operation: Callable[[], object]) -> None:
            told, self._intact = len(self.driver.history), False
            try:
                operation()
            finally:
                for line in self.driver.story(told):
                    note(line)
            self._intact = True

        @rule(data=st.data())
        def admit(self, data: st.DataObject) -> None:
            self._do("admit", data)

        @precondition(lambda self: applies("visit", self.driver))
        @rule(data=st.data())
        def visit(self, data: st.DataObject) -> None:
            self._do("visit", data)

        @rule(data=st.data())
        def grow(self, data: st.DataObject) -> None:
            self._do("grow", data)

        @rule(data=st.data())
        def grow_to_the_limit(self, data: st.DataObject) -> None:
            seqs = self.driver.live
            if len(seqs):
                headroom = self.driver.allocator.headroom(seqs)
                if headroom:
                    self._tell(lambda: self._grow_by(seqs, headroom))

        def _grow_by(self, seqs: IntArray, headroom: int) -> None:
            granted = self.driver.grow(seqs, headroom)
            require(granted, "headroom", f"{headroom} is promised and refused")

        @rule(data=st.data())
        def probe(self, data: st.DataObject) -> None:
            self._do("probe", data)

        @rule(data=st.data())
        def fork(self, data: st.DataObject) -> None:
            self._do("fork", data)

        @rule(data=st.data())
        def reassign(self, data: st.DataObject) -> None:
            self._do("reassign", data)

        @rule(data=st.data())
        def truncate(self, data: st.DataObject) -> None:
            self._do("truncate", data)

        @rule(data=st.data())
        def release(self, data: st.DataObject) -> None:
            self._do("release", data)

        @precondition(lambda self: applies("suspend", self.driver))
        @rule(data=st.data())
        def suspend(self, data: st.DataObject) -> None:
            self._do("suspend", data)

        @precondition(lambda self: applies("resume", self.driver))
        @rule(data=st.data())
        def resume(self, data: st.DataObject) -> None:
            self._do("resume", data)

        def teardown(self) -> None:
            # After a violation the end of the story would only hide what went wrong first.
            if self._intact:
                self.driver.release_all()
            for what, times in self.driver.counts.items():
                totals[what] += times
                event(f"{what} happened" if times else f"no {what}")

    return AllocatorMachine


def _drawing(data: st.DataObject) -> Draw:
    return lambda low, high: data.draw(st.integers(low, high))
