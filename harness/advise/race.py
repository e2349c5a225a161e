"""The search: settings race on one seed, a challenger only at the rate where the incumbent stops.

A round tries everything that differs from the incumbent in one knob, at the incumbent's capacity
times 1 + `at_least`.  Most fail there and are out after one run.  What holds goes on together:
the bar rises, and is then halved, until the best is known; beside the single changes their
combination runs.  Where no single change holds, pairs of the nearest misses have their turn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from harness.advise.knobs import KV_DTYPE
from harness.advise.space import Setting, Space
from harness.capacity.probe import Observation, Probe
from harness.capacity.question import Variant
from harness.capacity.runner import Runner
from harness.capacity.search import Capacity, Settings, failures, find, requests_by_rule
from harness.capacity.slo import Limits
from harness.errors import ConfigError

#: runs between two looks at the clock, and pairs of nearest misses that are tried at most
CHUNK, PAIRS = 8, 32
#: how far a bar is raised at most, in doublings of its first step
MOST_RAISES = 8
#: steps of the grid of rates in `at_least`
STEPS = 2


class Clock:
    """Seconds since it was made, against a budget."""

    def __init__(self, budget_s: float) -> None:
        self.budget_s, self._start = budget_s, time.monotonic()

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._start

    def has(self, share: float) -> bool:
        """Whether less than this share of the budget is spent."""
        return self.spent_s < share * self.budget_s


@dataclass
class Ring:
    """Where runs are made: the same requests for every setting.

    at_least: the smallest difference that counts, as a ratio less 1.  requests: of a run; 0: not
    yet known.  typed: the user's number of requests, which stays.
    """

    space: Space
    limits: Limits
    runner: Runner
    at_least: float
    requests: int = 0
    typed: int | None = None
    refused: dict[Setting, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(1, self.at_least / STEPS, self.requests or self.typed, None, False)

    def probe(self, variant: Variant, per_gpu: float, seed: int | None = None) -> Probe:
        """Return the run of a variant at a rate a GPU, by default of its first seed."""
        settings = self.settings
        rate = settings.rate(settings.power(per_gpu * variant.gpus))
        at = variant.seed if seed is None else seed
        return Probe(variant, rate, at, variant.requests or self.requests)

    def holds(self, seen: Observation) -> bool:
        return seen.ok and not failures(seen, self.limits)

    def excess(self, seen: Observation) -> float:
        """Return how far a run was from holding: 0 if it did, infinite if it was not served."""
        if not seen.ok:
            return math.inf
        if not failures(seen, self.limits):
            return 0.0
        return (10.0 if seen.diverges else 0.0) + max(
            self.limits.excess(seen.metrics).values(), default=0.0
        )


@dataclass
class Known:
    """A setting whose capacity is known: of one seed in a race, requests a second and GPU."""

    setting: Setting
    per_gpu: float
    seen: Observation


class Race:
    """Searches the best setting; `best` is what has been found at any time.

    told: what it says while it goes on.
    """

    def __init__(
        self, ring: Ring, clock: Clock, told: Callable[[str], None], history: list[Known]
    ) -> None:
        """`history` is told of each incumbent, too."""
        self.ring, self.clock, self._told = ring, clock, told
        self.best: Known | None = None
        self.history = history
        self.ended = False

    def run(self, share: float = 1.0) -> Known:
        """Race until nothing is better, or this share of the budget is spent.

        Raises `ConfigError`, one line, where no setting meets the limits.
        """
        if self.best is None:
            self._start()
        assert self.best is not None
        while self.clock.has(share):
            winner = self._round(share)
            if winner is None:
                self.ended = self.clock.has(share)
                break
            self._take(winner)
        return self.best

    def capacity(self, setting: Setting, near: float | None = None) -> Capacity:
        """Search a setting's capacity on the first seed, near a rate a GPU if that is known."""
        variant = self.ring.space.variant(setting)
        assert variant is not None
        rate = None if near is None else near * variant.gpus
        search = find(variant, self.ring.limits, self.ring.settings, near=rate)
        (capacity,) = self.ring.runner.run([search])
        return capacity

    def resume(self, setting: Setting, near: float) -> None:
        """Take a setting for the incumbent, of so many requests a second and GPU, about."""
        self._take(self._known(setting, self.capacity(setting, near)))

    def _start(self) -> None:
        space, reasons = self.ring.space, []
        others = [other for _, _, other in space.neighbours(space.default)]
        # More GPUs first: what does not fit, or is too slow, is mostly that.
        others.sort(key=lambda other: other.get("gpus") is None)
        for setting in [space.default, *others]:
            if space.variant(setting) is None:
                reasons.append(f"{setting.label}: {space.reason(setting)}")
                continue
            capacity = self.capacity(setting)
            if capacity.held:
                break
            reasons.append(f"{setting.label}: {capacity.reason}")
            self.ring.refused[setting] = str(capacity.reason)
            if not _is_helped(str(capacity.reason)):
                raise ConfigError(str(capacity.reason))
        else:
            raise ConfigError(
                f"no setting meets the limits, of {len(reasons)} that were tried; {reasons[0]}"
            )
        held = capacity.held[0].below
        if not self.ring.typed:
            at_once = float(held.metrics.get("peak_batch") or 1)
            self.ring.requests = max(capacity.requests or 0, requests_by_rule(at_once))
        self._take(self._known(setting, capacity))

    def _known(self, setting: Setting, capacity: Capacity) -> Known:
        held = capacity.held[0].below
        return Known(setting, (held.rate or 0.0) / capacity.variant.gpus, held)

    def _take(self, winner: Known) -> None:
        self.best, self.ended = winner, False
        self.history.append(winner)
        self._told(f"{winner.setting.label}: {winner.per_gpu:.4g} a second and GPU")

    def _round(self, share: float) -> Known | None:
        """Return the best of the incumbent's neighbours if it is better, else of pairs."""
        assert self.best is not None
        space, now = self.ring.space, self.best
        bar = now.per_gpu * (1 + self.ring.at_least)
        singles = [other for _, _, other in space.neighbours(now.setting)]
        seen = self._at(singles, bar, share)
        near = sorted(seen, key=lambda other: self.ring.excess(seen[other]))
        held = [other for other in near if self.ring.holds(seen[other])]
        if not held:
            pairs = self._merged(now.setting, {s: self.ring.excess(seen[s]) for s in near})
            seen = self._at(pairs, bar, share)
            held = [other for other in seen if self.ring.holds(seen[other])]
        else:
            held = list(dict.fromkeys([*held, *self._all_of(now.setting, held)]))
        return self._best_of(held, now, share) if held else None

    def _all_of(self, now: Setting, held: Sequence[Setting]) -> list[Setting]:
        """Return the combination of what held: of each knob the first value of those that did."""
        values: dict[str, str | None] = {}
        for other in held:
            for name in _differ(now, other):
                values.setdefault(name, other.get(name))
        space = self.ring.space
        both = space.set(now, **values)
        return [both] if both not in held and space.variant(both) is not None else []

    def _merged(self, now: Setting, excess: Mapping[Setting, float]) -> list[Setting]:
        """Return pairs of changes of different knobs, those of the nearest misses first."""
        found: dict[Setting, float] = {}
        for one, other in combinations(excess, 2):
            values = {name: one.get(name) for name in _differ(now, one)}
            more = {name: other.get(name) for name in _differ(now, other)}
            both = self.ring.space.set(now, **values, **more) if not values.keys() & more else now
            if both not in (now, one, other):
                found.setdefault(both, excess[one] + excess[other])
        nearest = sorted(found, key=lambda both: found[both])[:PAIRS]
        return [both for both in nearest if self.ring.space.variant(both) is not None]

    def _at(
        self, settings: Iterable[Setting], per_gpu: float, share: float = math.inf
    ) -> dict[Setting, Observation]:
        """Run settings at a rate a GPU; those for which the time is not enough are left out."""
        wanted = list(settings)
        found: dict[Setting, Observation] = {}
        for start in range(0, len(wanted), CHUNK):
            if not self.clock.has(share):
                break
            some = wanted[start : start + CHUNK]
            probes = [self.ring.probe(self._variant(s), per_gpu) for s in some]
            for setting, seen in zip(some, self.ring.runner.observe(probes), strict=True):
                found[setting] = seen
                if not seen.ok:
                    self.ring.refused[setting] = f"{seen.status}: {seen.reason}"
        return found

    def _variant(self, setting: Setting) -> Variant:
        variant = self.ring.space.variant(setting)
        assert variant is not None
        return variant

    def _best_of(self, held: list[Setting], now: Known, share: float) -> Known:
        """Return the best of settings that hold at the incumbent's bar, and its capacity.

        The bar rises, by steps that double, until none holds, and is then halved.
        """
        ring = self.ring
        step = math.log1p(ring.at_least) / STEPS
        low, last = STEPS, {}
        for raised in range(MOST_RAISES):
            high = low + STEPS * 2**raised
            seen = self._at(held, now.per_gpu * math.exp(step * high))
            over = [each for each in held if ring.holds(seen[each])]
            if not over:
                break
            low, held, last = high, over, seen
        while high - low > 1:
            middle = (low + high) // 2
            seen = self._at(held, now.per_gpu * math.exp(step * middle))
            over = [each for each in held if ring.holds(seen[each])]
            if over:
                low, held, last = middle, over, seen
            else:
                high = middle
        # Of several that are level the one that changes least.
        first = min(held, key=_changes)
        per_gpu = now.per_gpu * math.exp(step * low)
        seen = last.get(first) or self._at([first], per_gpu)[first]
        return Known(first, (seen.rate or 0.0) / self._variant(first).gpus, seen)


def _differ(one: Setting, other: Setting) -> list[str]:
    """Return the knobs in which two settings differ."""
    a, b = dict(one.changed), dict(other.changed)
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


def _changes(setting: Setting) -> tuple[int, bool, tuple[tuple[str, str], ...]]:
    """Return what a setting changes, to be ordered: of the KV's type and another knob the other."""
    return len(setting.changed), setting.get(KV_DTYPE) is not None, setting.changed


def _is_helped(reason: str) -> bool:
    """Whether another setting might do where this one has no rate."""
    return not reason.startswith("no rate is too high")
