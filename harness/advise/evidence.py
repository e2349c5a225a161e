"""What a knob is worth: capacities over seeds that the search has not seen, in pairs.

The requests of a seed are the same in both of a pair, so that their ratio varies less than either.
A knob whose gain is smaller than `at_least`, or whose interval holds no gain, goes back to its
default: one after the other, the least first, for two that do the same may each look worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from harness.advise.knobs import BY_NAME
from harness.advise.race import CHUNK, Clock, Ring
from harness.advise.space import Setting
from harness.capacity.answer import Interval, interval
from harness.capacity.question import Variant
from harness.capacity.search import Capacity, Searching, find

#: of one sample nothing says how sure it is: differences below this are not recommended
ONE_SAMPLE = 0.05


@dataclass(frozen=True)
class Worth:
    """What a knob's value is worth, against its default, with all else as it is advised.

    ratio: of requests a second and GPU; None: the default has no rate, for `reason`.
    """

    name: str
    value: str
    default: str
    ratio: Interval | None
    reason: str | None = None
    counts: bool = True


@dataclass
class Weighed:
    """What is advised, and what it is worth.

    capacities: of each setting that was weighed.  worth: of each knob that is changed; dropped: of
    those that went back.  over_default: of all together; None: the defaults have no rate.
    complete: not cut off by the budget.
    """

    setting: Setting
    capacities: dict[Setting, Capacity] = field(default_factory=dict)
    worth: list[Worth] = field(default_factory=list)
    dropped: list[Worth] = field(default_factory=list)
    over_default: Interval | None = None
    complete: bool = False

    @property
    def capacity(self) -> Capacity:
        return self.capacities[self.setting]


@dataclass(frozen=True)
class Around:
    """A knob's other values beside the one that is advised, on one seed.

    better: hold the limits at a rate higher by `at_least`; level: at one lower by it; worse: not
    even there.  refused: do not run at all, with the reason.
    """

    name: str
    value: str
    better: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def per_gpu(capacity: Capacity) -> Interval:
    """Return requests a second and GPU: the rate that held, up to the end of what did not."""
    gpus = capacity.variant.gpus
    low = interval([(held.below.rate or 0.0) / gpus for held in capacity.held])
    high = interval([(held.above.rate or 0.0) / gpus for held in capacity.held])
    return Interval(low.mean, low.low, high.high)


def ratio(of: Capacity, to: Capacity) -> Interval:
    """Return how many times the capacity a GPU of `to` that of `of` is, over seeds in pairs.

    The interval holds what halving leaves open as well: either capacity may be anything between the
    rate that held and the one above it that did not.
    """
    others = {held.seed: held for held in to.held}
    pairs = [(held, others[held.seed]) for held in of.held if held.seed in others]
    gpus = math.log(to.variant.gpus / of.variant.gpus)

    def over(ends: list[tuple[float | None, float | None]]) -> Interval:
        return interval([math.log((a or 0.0) / (b or 1.0)) + gpus for a, b in ends])

    middle = over([(a.below.rate, b.below.rate) for a, b in pairs])
    if middle.low is None or middle.high is None:
        return Interval(math.exp(middle.mean))
    least = over([(a.below.rate, b.above.rate) for a, b in pairs])
    most = over([(a.above.rate, b.below.rate) for a, b in pairs])
    assert least.low is not None
    assert most.high is not None
    return Interval(math.exp(middle.mean), math.exp(least.low), math.exp(most.high))


def counts(gain: Interval, at_least: float) -> bool:
    """Whether a gain is one that may be recommended: beyond its noise, and not too small."""
    if gain.low is None:
        return gain.mean >= 1 + max(at_least, ONE_SAMPLE)
    return gain.low > 1.0 and gain.mean >= 1 + at_least


def _weighing(ring: Ring, variant: Variant, seeds: int, near: float) -> Searching:
    """Return the search for a variant's capacity over the seeds of the evidence."""
    settings = replace(ring.settings, seeds=seeds)
    other = replace(variant, seed=variant.seed + 1) if variant.seeds_differ else variant
    return find(other, ring.limits, settings, near=near * variant.gpus)


def capacities(
    ring: Ring,
    settings: Sequence[Setting],
    seeds: int,
    near: float,
    more: Callable[[Setting], Sequence[str]] = lambda setting: (),
) -> dict[Setting, Capacity]:
    """Return the capacity of each setting, near so many requests a second and GPU.

    more: further options of a setting.
    """
    variants = {each: ring.space.variant(each, more(each)) for each in dict.fromkeys(settings)}
    wanted = {each: variant for each, variant in variants.items() if variant is not None}
    found = ring.runner.run([_weighing(ring, v, seeds, near) for v in wanted.values()])
    return dict(zip(wanted, found, strict=True))


def weigh(
    ring: Ring, weighed: Weighed, near: float, seeds: int, told: Callable[[str], None]
) -> None:
    """Weigh what a search has found, `weighed.setting`, and make of it what may be advised.

    near: its requests a second and GPU, about.
    """
    space, known = ring.space, weighed.capacities
    while True:
        now = weighed.setting
        without = {name: space.set(now, **{name: None}) for name, _ in now.changed}
        wanted = [s for s in (now, space.default, *without.values()) if s not in known]
        known.update(capacities(ring, wanted, seeds, near))
        if not known[now].held and now.changed:
            # It held on the seed of the search alone: the last step of it is taken back.
            weighed.setting = next(iter(without.values()))
            continue
        weighed.worth = [_worth(ring, known, now, name, other) for name, other in without.items()]
        idle = [worth for worth in weighed.worth if not worth.counts]
        if not idle:
            break
        least = min(idle, key=lambda worth: worth.ratio.mean if worth.ratio else math.inf)
        weighed.dropped.append(least)
        weighed.setting = without[least.name]
        told(f"{least.name}={least.value} is within noise: back to {least.default}")
    default = known.get(space.default)
    if default is not None and default.held and weighed.capacity.held:
        weighed.over_default = ratio(weighed.capacity, default)
    weighed.complete = True


def _worth(
    ring: Ring, known: dict[Setting, Capacity], now: Setting, name: str, other: Setting
) -> Worth:
    space, knob = ring.space, BY_NAME[name]
    value = str(now.get(name))
    default = str(space.default_of(knob, space.allocator(other)))
    without = known.get(other)
    if without is None or not without.held:
        reason = space.reason(other) if without is None else without.reason
        return Worth(name, value, default, None, reason)
    gain = ratio(known[now], without)
    return Worth(name, value, default, gain, counts=counts(gain, ring.at_least))


def around(
    ring: Ring, weighed: Weighed, near: float, clock: Clock, share: float
) -> tuple[list[Around], list[Setting]]:
    """Try each other value of each knob beside what is advised, a little above and below.

    near: requests a second and GPU of what is advised, about.
    Returns for each knob what was seen, and the setting with the value that came nearest.
    """
    space, now = ring.space, weighed.setting
    variant = space.variant(now)
    assert variant is not None
    (capacity,) = ring.runner.run(
        [find(variant, ring.limits, ring.settings, near=near * variant.gpus)]
    )
    if not capacity.held:
        return [], []
    at = (capacity.held[0].below.rate or 0.0) / variant.gpus
    others = space.neighbours(now)
    above = _excess(ring, [o for _, _, o in others], at * (1 + ring.at_least), clock, share)
    rest = [o for _, _, o in others if above.get(o, 0.0) > 0]
    below = _excess(ring, rest, at / (1 + ring.at_least), clock, share)
    found, nearest = [], []
    for knob in space.knobs:
        mine = [(value, other) for each, value, other in others if each is knob]
        if not mine or space.value(now, knob) is None:
            continue
        found.append(
            Around(
                knob.name,
                str(space.value(now, knob)),
                tuple(value for value, o in mine if above.get(o) == 0.0),
                tuple(value for value, o in mine if below.get(o) == 0.0),
                tuple(value for value, o in mine if below.get(o, 0.0) > 0),
                tuple((value, ring.refused[o]) for value, o in mine if o in ring.refused),
            )
        )
        seen = [other for _, other in mine if other in above]
        nearest += sorted(seen, key=lambda other: (below.get(other, 0.0), above[other]))[:1]
    return found, nearest


def _excess(
    ring: Ring, settings: Sequence[Setting], rate: float, clock: Clock, share: float
) -> dict[Setting, float]:
    """Return how far settings are from holding a rate a GPU, 0 where they do.

    Those that do not run, and those that there is no time for, are left out.
    """
    found: dict[Setting, float] = {}
    wanted = [each for each in settings if each not in ring.refused]
    for start in range(0, len(wanted), CHUNK):
        if not clock.has(share):
            break
        some = wanted[start : start + CHUNK]
        variants = [ring.space.variant(each) for each in some]
        seen = ring.runner.observe([ring.probe(v, rate) for v in variants if v is not None])
        for setting, observation in zip(some, seen, strict=True):
            if not observation.ok:
                ring.refused[setting] = f"{observation.status}: {observation.reason}"
            else:
                found[setting] = ring.excess(observation)
    return found
