"""`Virtual` and the slow manager side by side, over random shapes and stories under pressure."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import event, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from allocators.base import Demand, Prompt
from tests.allocators.virtual.replay import Memory, virtual
from tests.allocators.virtual.slow_manager import Shape, SlowManager, Work
from tests.allocators.virtual.slow_scheduler import may_grow
from tests.stories import tell_machine

KIB = 1 << 10
#: (background, deferred)
MODES = {
    "async": (True, True), "async_reclaim": (True, False), "sync": (False, False),
    "sync_deferred": (False, True),
}  # fmt: skip
SHAPES = st.builds(
    Shape,
    layers=st.integers(1, 3),
    kv_heads=st.sampled_from([5, 7, 8]),
    head_dim=st.sampled_from([256, 512, 640]),
    max_len=st.integers(20, 120),
    slots=st.integers(2, 8),
    page_bytes=st.sampled_from([64 * KIB, 64 * KIB, 128 * KIB, 256 * KIB]),
    one_tensor_for_all_layers=st.booleans(),
)


def machine(mode, totals):
    """Return a state machine for one mode; what happened is added to `totals`."""

    class SideBySide(RuleBasedStateMachine):
        @initialize(shape=SHAPES, data=st.data())
        def build(self, shape, data):
            most = -(-shape.max_len // shape.group_tokens)
            # From a little less than one sequence could take to half of what all slots could.
            least = max(1, most - 2)
            groups = data.draw(st.integers(least, least + most * shape.slots // 2))
            background, deferred = MODES[mode]
            note(f"{shape}, {shape.group_tokens} tokens a group, {groups} groups")
            self.shape, self.pool = shape, groups
            self.background, self.deferred = background, deferred
            self.slow = SlowManager(shape, groups, deferred)
            self.fast = virtual(shape, groups, background=background, deferred=deferred)
            assert self.fast.geometry.page_tokens == shape.group_tokens
            self.memory = Memory(self.fast)
            self.live: list[list[int]] = []  # [row, slot], oldest first
            self.counts = Counter()

        # -- what happens ----------------------------------------------------------------------
        @rule(data=st.data(), times=st.integers(1, 12))
        def steps(self, data, times):
            """Take steps; the first admits prompts if any fit, all others only grow."""
            self._step(data.draw(st.lists(st.integers(1, 40), max_size=3)), data)
            for _ in range(times - 1):
                self._step([], data)

        @precondition(lambda self: self.live)
        @rule(data=st.data())
        def end(self, data):
            """End some that live; what that does to memory is seen in the next step."""
            places = data.draw(st.sets(st.integers(0, len(self.live) - 1), min_size=1))
            self._end([self.live[at] for at in sorted(places)])

        # -- parts of a step -------------------------------------------------------------------
        def _step(self, prompts, data):
            """Admit prompts; if none fits, let all that live grow by a token."""
            self.slow.start_counting()
            self.critical, background = Work(), Work()
            assert self.fast.available == self.slow.available()
            self.lengths = list(self.slow.lengths)  # as the step will be told them
            if not self._admit(prompts):
                self._grow(data.draw(st.sampled_from([0] * 9 + [1, 2])))
            if self.background:
                self.slow.step_async(self.lengths)
            else:
                self.slow.step_sync(self.lengths, unmap_idle=not self.deferred)
            before, beside = self.fast.begin_step()
            self.memory.execute(before, self.critical)
            assert self.memory.mapped == self.slow.mapped_critical
            self.memory.execute(beside, background)
            assert (self.critical, background) == (self.slow.critical, self.slow.background)
            self.counts["critical maps"] += self.critical.maps
            self.counts["critical unmaps"] += self.critical.unmaps
            self.counts["background maps"] += background.maps
            self.counts["background unmaps"] += background.unmaps
            self._compare()
            longest = [pair for pair in self.live if self.lengths[pair[1]] == self.shape.max_len]
            self._end(longest)

        def _admit(self, prompts):
            free, admitted = self.slow.available(), 0
            for tokens in prompts:
                rows = sorted(set(range(self.shape.slots)).difference(r for r, _ in self.live))
                tokens = min(tokens, self.shape.max_len)
                needed = self.slow.needed(tokens)
                if not rows or needed > self.pool:
                    break
                left = free - needed
                fits = left >= (int(0.01 * self.pool) if self.live else 0)
                row = rows[-1]
                demand = Demand(tokens, self.shape.max_len - tokens + 1)
                grant = self.fast.admit(np.array([row]), Prompt(tokens), demand)
                assert (grant is not None) == fits, f"{needed} groups, {free} are available"
                self.counts["admissions" if fits else "admissions refused"] += 1
                if not fits:
                    break
                self.memory.execute(grant, self.critical)
                self.live.append([row, self.slow.take_slot(tokens)])
                slot = self.live[-1][1]
                assert self.fast.range_of[row] == slot
                self.lengths[slot] = tokens
                free, admitted = left, admitted + 1
            return admitted

        def _grow(self, unasked):
            free, going = self.slow.available(), list(self.live)
            attempt = 0
            while going:
                grown = [(slot, self.slow.lengths[slot] + 1) for _, slot in going]
                if attempt >= unasked:
                    fits = may_grow(self.slow, grown, free)
                    grant = self.fast.grow(np.array([row for row, _ in going]), 1)
                    assert (grant is not None) == fits
                    if fits:
                        self.memory.execute(grant, self.critical)
                        for slot, tokens in grown:
                            self.lengths[slot] = tokens
                        return
                    self.counts["growth refused"] += 1
                row, slot = going.pop()
                free += self.slow.needed(self.slow.lengths[slot] + 1)
                self.slow.leave_slot(slot)
                self.lengths[slot] = 0
                self.memory.execute(self.fast.preempt(np.array([row])), self.critical)
                self.live.remove([row, slot])
                self.counts["preemptions"] += 1
                attempt += 1

        def _end(self, pairs):
            if not pairs:
                return
            self.critical = Work()
            for row, slot in pairs:
                self.live.remove([row, slot])
                self.slow.leave_slot(slot)
            rows = np.array([row for row, _ in pairs])
            self.memory.execute(self.fast.release(rows), self.critical)
            assert self.critical == Work()
            self._compare()

        def _compare(self):
            lengths = [0] * self.shape.slots
            for row, _ in self.live:
                lengths[self.fast.range_of[row]] = int(self.fast.length[row])
            assert lengths == self.slow.lengths
            assert self.memory.mapped == self.slow.mapped
            assert len(self.fast.pages.free) == self.slow.free
            assert self.fast.available == self.slow.available()
            self.memory.check()
            self.fast.check()

        def teardown(self):
            for what, times in getattr(self, "counts", {}).items():
                totals[what] += times
                event(f"{what} happened" if times else f"no {what}")

    return SideBySide


EVERYWHERE = {
    "admissions", "admissions refused", "growth refused", "preemptions", "critical maps",
    "critical unmaps",
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_virtual_equals_the_slow_manager_after_every_step(mode):
    totals = Counter()
    told = machine(mode, totals)
    background = {"background maps", "background unmaps"} if MODES[mode][0] else set()
    limits = settings(max_examples=20, stateful_step_count=25)
    tell_machine(told, limits, lambda: all(totals[what] for what in EVERYWHERE | background))
    assert {what for what, times in totals.items() if times} == EVERYWHERE | background
