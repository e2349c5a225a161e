"""The same operations as a Hypothesis state machine, so that a failure shrinks to a short story."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import event, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from allocators.base import IntArray
from harness.conformance.memory import require
from harness.conformance.schedule import OPERATIONS, Draw, applies
from harness.conformance.trial import Make, Trial


def state_machine(make: Make, totals: Counter[str]) -> type[RuleBasedStateMachine]:
    """Return a machine that drives what `make` builds; what happened is added to `totals`."""

    class AllocatorMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.trial = Trial(make)
            self._intact = True

        def _do(self, name: str, data: st.DataObject) -> None:
            self._tell(lambda: OPERATIONS[name](self.trial, _drawing(data)))

        def _tell(self, operation: Callable[[], object]) -> None:
            told, self._intact = len(self.trial.history), False
            try:
                operation()
            finally:
                for line in self.trial.story(told):
                    note(line)
            self._intact = True

        @rule(data=st.data())
        def admit(self, data: st.DataObject) -> None:
            self._do("admit", data)

        @precondition(lambda self: applies("visit", self.trial))
        @rule(data=st.data())
        def visit(self, data: st.DataObject) -> None:
            self._do("visit", data)

        @rule(data=st.data())
        def grow(self, data: st.DataObject) -> None:
            self._do("grow", data)

        @rule(data=st.data())
        def grow_to_the_limit(self, data: st.DataObject) -> None:
            rows = self.trial.live
            if len(rows):
                headroom = self.trial.allocator.headroom(rows)
                if headroom:
                    self._tell(lambda: self._grow_by(rows, headroom))

        def _grow_by(self, rows: IntArray, headroom: int) -> None:
            granted = self.trial.grow(rows, headroom)
            require(granted, "headroom", f"{headroom} is promised and refused")

        @rule(data=st.data())
        def burst(self, data: st.DataObject) -> None:
            self._do("burst", data)

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

        @rule(data=st.data())
        def preempt(self, data: st.DataObject) -> None:
            self._do("preempt", data)

        @precondition(lambda self: applies("suspend", self.trial))
        @rule(data=st.data())
        def suspend(self, data: st.DataObject) -> None:
            self._do("suspend", data)

        @precondition(lambda self: applies("resume", self.trial))
        @rule(data=st.data())
        def resume(self, data: st.DataObject) -> None:
            self._do("resume", data)

        def teardown(self) -> None:
            # After a violation the end of the story would only hide what went wrong first.
            if self._intact:
                self.trial.release_all()
            for what, times in self.trial.counts.items():
                totals[what] += times
                event(f"{what} happened" if times else f"no {what}")

    return AllocatorMachine


def _drawing(data: st.DataObject) -> Draw:
    return lambda low, high: data.draw(st.integers(low, high))
