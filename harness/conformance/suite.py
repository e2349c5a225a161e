"""The tests: subclass `AllocatorConformance` in a test file and name what it should build."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from allocators.base import Allocator, Demand, Geometry, NeverFits, Prompt
from allocators.layers import KEEPING_KINDS, LayerGroup
from harness.conformance import checks
from harness.conformance.machine import state_machine
from harness.conformance.memory import require
from harness.conformance.schedule import drive
from harness.conformance.swapping import resumes_beside, tickets_held
from harness.conformance.trial import Trial, fits_when_empty

#: about five sequences of full length, and two of host memory; a 64 KiB page of one tensor holds 8
#: tokens
SMALL_GEOMETRY = Geometry(
    capacity_tokens=500, max_seqs=12, max_len=96, layers=2, kv_heads=8, head_dim=512,
    host_tokens=200,
)  # fmt: skip
#: for policies whose smallest unit is large: a 2 MiB page of one tensor holds 64 tokens
ROOMY_GEOMETRY = Geometry(
    capacity_tokens=1300, max_seqs=12, max_len=260, layers=2, kv_heads=16, head_dim=1024,
    host_tokens=520,
)  # fmt: skip
#: for policies of models with layer groups, in pages of any bytes
LAYERED_GEOMETRY = Geometry(
    capacity_tokens=400, max_seqs=12, max_len=96, host_tokens=150, step_tokens=32,
    layer_groups=(LayerGroup("full", 2, 64), LayerGroup("sliding", 4, 128, window=20)),
    pool_bytes=400 * (64 + 128),
)  # fmt: skip


def _lasting_bytes(geometry: Geometry) -> int:
    """Return the bytes of a token that are held as long as its sequence lives."""
    if not geometry.layer_groups:
        return geometry.bytes_per_token
    lasting = (of.slot_bytes for of in geometry.layer_groups if of.kind in KEEPING_KINDS)
    return sum(lasting)


class AllocatorConformance:
    """The invariants of `allocators.base` as tests of one allocator.

    `factory(geometry, **knobs)` builds it.  `expects` names what the seeded schedule must have
    caused at least once, so that no invariant holds for want of pressure: `refusals`, and where
    the policy does them `copies`, `maps`, `unmaps`, `hits`, for swapping `suspends`, `resumes`,
    `suspend_refusals` and `resume_refusals`, and for a prefix cache in host memory `saves` and
    `fetches`.
    """

    factory: ClassVar[Callable[..., Allocator]]
    knobs: ClassVar[Mapping[str, Any]] = {}
    geometry: ClassVar[Geometry] = SMALL_GEOMETRY
    expects: ClassVar[tuple[str, ...]] = ("refusals",)
    seeds: ClassVar[int] = 4
    seeded_steps: ClassVar[int] = 100
    settings: ClassVar[settings] = settings(
        max_examples=10,
        stateful_step_count=25,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # The first story of a failure is enough; to explain it or find others takes minutes.
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
    )

    def make(self) -> Allocator:
        """Build a fresh allocator; each must behave exactly as the others."""
        factory = inspect.getattr_static(type(self), "factory", None)
        if factory is None:
            pytest.fail(f"{type(self).__name__} names no `factory` to build its allocator with")
        if isinstance(factory, staticmethod):
            factory = factory.__func__
        return factory(self.geometry, **self.knobs)

    def test_every_invariant_holds_under_pressure(self) -> None:
        counts: Counter[str] = Counter()
        for seed in range(self.seeds):
            trial = drive(self.make, seed, self.seeded_steps)
            counts += trial.counts
            self._nothing_remains(trial)
        for what in self.expects:
            require(counts[what] > 0, "pressure", f"the schedule saw no {what}: {dict(counts)}")

    def test_every_invariant_holds_in_any_order(self) -> None:
        totals: Counter[str] = Counter()
        run_state_machine_as_test(state_machine(self.make, totals), settings=self.settings)
        require(totals["grants"] > 0, "pressure", "no call was granted")

    def test_impossible_requests_never_fit(self) -> None:
        geometry = self.geometry
        private, size = geometry.max_len - 1, geometry.max_seqs - 1
        if (1 + private * size) * _lasting_bytes(geometry) <= geometry.capacity_bytes:
            pytest.skip("this geometry has room for every request")
        impossible = Prompt(1), Demand(1, private + 1, private)
        require(
            not fits_when_empty(self.make, size, *impossible),
            "never fits",
            f"{size} x {private} tokens of their own in {geometry.capacity_tokens} slots",
        )
        trial = Trial(self.make)
        last = geometry.max_seqs - 1
        trial.admit(np.array([last]), Prompt(1), Demand(1, 1))
        before = checks.snapshot(trial.allocator, trial.live, trial.final(trial.live))
        with pytest.raises(NeverFits):
            trial.allocator.admit(np.arange(size), *impossible)
        after = checks.snapshot(trial.allocator, trial.live, trial.final(trial.live))
        require(before == after, "atomic", "a request that never fits changed the state")

    def test_what_is_resumed_beside_others_can_grow(self) -> None:
        # The fullest pool that takes the ticket back is where a slot may be missing.
        low, high = 1, self.geometry.capacity_tokens
        require(resumes_beside(self.make, low) is not False, "swaps", "no resume beside one token")
        while low < high:
            middle = (low + high + 1) // 2
            granted = resumes_beside(self.make, middle)
            if granted is None:
                pytest.skip("nothing was suspended")
            low, high = (middle, high) if granted else (low, middle - 1)

    def test_hits_are_honest_where_other_tokens_came(self) -> None:
        if not self.make().has_prefix_index:
            pytest.skip("no prefix index")
        changes: list[Callable[[Trial, int], object]] = [
            lambda trial, half: trial.fork(0, np.array([1])),
            lambda trial, half: trial.truncate(0, half // 2 + 1),
        ]
        for change in changes:
            trial = Trial(self.make)
            ids, row = np.arange(self.geometry.max_len * 2 // 3), np.array([0])
            half = len(ids) // 2
            for tokens in (half, len(ids)):
                trial.admit(row, Prompt(tokens, ids), Demand(tokens, len(ids) - tokens + 1))
                change(trial, half)
                trial.grow(trial.live, half // 2)
                trial.release_all()

    def _nothing_remains(self, trial: Trial) -> None:
        """Check that a pool which all have left holds what a new one does, and its host memory."""
        size = self._largest_prompt
        granted = trial.admit(np.array([0]), Prompt(size), Demand(size, 1))
        require(granted, "total release", f"{size} tokens fitted before, not after")
        trial.release_all()
        # Host memory may hold a prefix cache, or what an empty pool cannot take back.
        if trial.counts["suspends"] and not trial.counts["saves"] and not trial.tickets:
            fresh, used = tickets_held(self.make()), tickets_held(trial.allocator)
            require(fresh == used, "swaps", f"host memory holds {used} tickets, {fresh} when new")

    @cached_property
    def _largest_prompt(self) -> int:
        """The longest prompt that an empty pool holds."""
        low, high = 0, min(self.geometry.max_len, self.geometry.capacity_tokens)
        while low < high:
            middle = (low + high + 1) // 2
            if fits_when_empty(self.make, 1, Prompt(middle), Demand(middle, 1)):
                low = middle
            else:
                high = middle - 1
        require(low > 0, "never fits", "an empty pool holds not even one token")
        return low
