"""Random operations on a trial, as a Hypothesis state machine."""

from collections import Counter

import numpy as np
from hypothesis import Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.allocators.layered.trial import Trial
from tests.stories import tell_machine

#: to shrink such a story takes longer than to read it
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def tell_stories(make, examples, expected, steps=25, groups_too=True):
    """Run random stories of the policies that `make(data)` builds; return what happened.

    As many others are told until all that is `expected` has happened.
    """
    totals = Counter()
    told = machine(make, totals, groups_too)
    limits = settings(
        max_examples=examples, stateful_step_count=steps, phases=PHASES, derandomize=True
    )
    tell_machine(told, limits, lambda: all(totals[what] for what in expected))
    return totals


def machine(make, totals, groups_too):
    """Return a state machine for the policy that `make(data)` says how to build.

    What happened is added to `totals`.
    """

    class Layered(RuleBasedStateMachine):
        trial = None

        @initialize(data=st.data())
        def begin(self, data):
            self.trial = Trial(make(data))

        @precondition(lambda self: self.trial.idle)
        @rule(data=st.data())
        def admit(self, data):
            trial, idle = self.trial, self.trial.idle
            most = trial.geometry.max_len
            step = min(trial.geometry.step_tokens or most, most)
            size = data.draw(st.integers(1, min(3, len(idle)))) if groups_too else 1
            tokens = data.draw(st.integers(1, max(1, step * 2 // 3)))
            whole = data.draw(st.integers(tokens, max(tokens, most // 2)))
            output = data.draw(st.integers(1, most - whole + 1))
            private = 0
            if size > 1:
                whole = tokens
                private = data.draw(st.integers(0, max(0, min(output - 1, step - tokens))))
                output = min(output, most - tokens + 1)
            rows = np.array(idle[-size:])
            sequences = data.draw(st.integers(1, 2)) if size == 1 else 1
            ids = None
            if trial.allocator.has_prefix_index and data.draw(st.integers(0, 3)):
                # Long runs of equal tokens, so that many begin alike.
                change = data.draw(st.integers(0, most))
                ids = [int(position >= change) for position in range(most)]
            trial.admit(rows, tokens, output, private, whole, sequences, ids)

        def _some(self, data):
            trial = self.trial
            most = trial.geometry.max_len
            rows = [row for row in trial.live if trial.length(row) < most]
            if data.draw(st.booleans()):
                rows = [row for row in rows if data.draw(st.booleans())]
            return np.array(rows, dtype=np.int64)

        @precondition(lambda self: self.trial.live)
        @rule(data=st.data(), times=st.integers(1, 6))
        def grow(self, data, times):
            trial = self.trial
            rows = self._some(data)
            for _ in range(times):
                if not len(rows):
                    return
                most = trial.geometry.max_len - max(map(trial.length, rows.tolist()))
                if not most:
                    return
                trial.check_growth(rows, 9)
                n = 1
                if data.draw(st.integers(0, 3)) == 0:
                    n = data.draw(st.integers(1, min(most, trial.geometry.step_tokens or most)))
                if not trial.grow(rows, n):
                    trial.release(rows[-1:], "preempt")
                    rows = rows[:-1]

        @precondition(lambda self: groups_too and self.trial.live)
        @rule(data=st.data())
        def fork(self, data):
            trial, idle = self.trial, self.trial.idle
            if idle:
                parent = data.draw(st.sampled_from(sorted(trial.live)))
                size = data.draw(st.integers(1, min(2, len(idle))))
                trial.fork(parent, np.array(idle[:size]), 0)

        @precondition(lambda self: groups_too and self.trial.live)
        @rule(data=st.data())
        def reassign(self, data):
            trial = self.trial
            peers = {}
            for row, sequence in trial.live.items():
                peers.setdefault((sequence.group, trial.length(row)), []).append(row)
            members = max(peers.values(), key=len)
            parents = [data.draw(st.sampled_from(members)) for _ in members]
            trial.reassign(np.array(members), np.array(parents))

        @precondition(lambda self: self.trial.live)
        @rule(data=st.data(), drafted=st.integers(1, 4))
        def speculate(self, data, drafted):
            """Grow by some tokens and roll some of them back."""
            trial = self.trial
            row = data.draw(st.sampled_from(sorted(trial.live)))
            drafted = min(drafted, trial.geometry.max_len - trial.length(row))
            drafted = min(drafted, trial.geometry.step_tokens or drafted)
            if drafted > 1 and trial.grow(np.array([row]), drafted):
                trial.truncate(row, data.draw(st.integers(1, drafted - 1)))

        @precondition(lambda self: self.trial.live)
        @rule(data=st.data())
        def cut(self, data):
            trial = self.trial
            row = data.draw(st.sampled_from(sorted(trial.live)))
            if trial.length(row) > 1:
                trial.truncate(row, data.draw(st.integers(1, trial.length(row) - 1)))

        @precondition(lambda self: self.trial.live)
        @rule(data=st.data())
        def release(self, data):
            trial = self.trial
            row = data.draw(st.sampled_from(sorted(trial.live)))
            trial.release(np.array([row]))

        @precondition(lambda self: self.trial.live)
        @rule(data=st.data())
        def suspend(self, data):
            trial = self.trial
            row = data.draw(st.sampled_from(sorted(trial.live)))
            group = [r for r, s in trial.live.items() if s.group == trial.live[row].group]
            ticket = max(trial.tickets, default=0) + 7
            trial.suspend(np.array(group), ticket)

        @precondition(lambda self: self.trial.tickets)
        @rule(data=st.data())
        def resume(self, data):
            trial = self.trial
            ticket = data.draw(st.sampled_from(sorted(trial.tickets)))
            size = len(trial.tickets[ticket])
            if size <= len(trial.idle):
                trial.resume(np.array(trial.idle[-size:]), ticket)

        def teardown(self):
            if self.trial is None:
                return
            self.trial.end()
            for what, times in self.trial.counts.items():
                totals[what] += times
                event(what)

    return Layered
