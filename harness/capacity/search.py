"""The highest rate within limits: bracketed, then halved, for each seed.

Rates are powers of 1 + tolerance, so that questions with other limits, other allocators and other
seeds ask for the very same runs.  A search is a generator: it yields probes that can run beside
each other and is sent their observations, and does not care who runs them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace

from harness.capacity.probe import Observation, Probe
from harness.capacity.question import Variant
from harness.capacity.slo import PREFIX, Limits
from harness.results.metrics import BY_NAME

#: requests of the first run, all at once, which shows how many are served beside each other
FIRST_REQUESTS = 3000
#: requests of a run, for each that is served at once, at least
REQUESTS_A_PLACE = 30
#: how far from the throughput of a saturated pool a rate is looked for, as a factor
FARTHEST_UP, FARTHEST_DOWN = 64.0, 4096.0
#: steps, in powers, from the capacity of the first seed in which the others begin to look
NEAR = 2
#: shares of the capacity at which the curve has points
CURVE = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.05, 1.1, 1.2)
QUEUE_GROWS = "the queue grows"

Searching = Generator[list[Probe], list[Observation], "Capacity"]
OneSearch = Generator[Probe, Observation, "Held"]


@dataclass(frozen=True)
class Settings:
    """seeds: replications. tolerance: the ratio between neighbouring rates, less 1.

    requests: of a run; None: by rule, see `requests_by_rule`. duration_s: seconds of arrivals
    instead. curve: whether rates around the capacity are run as well.
    """

    seeds: int = 5
    tolerance: float = 0.02
    requests: int | None = None
    duration_s: float | None = None
    curve: bool = True

    def rate(self, power: int) -> float:
        """Return the rate of a power, in five digits."""
        return float(f"{(1 + self.tolerance) ** power:.5g}")

    def power(self, rate: float) -> int:
        """Return the power whose rate is nearest."""
        return round(math.log(rate) / math.log1p(self.tolerance))


@dataclass(frozen=True)
class Held:
    """What one seed found: the highest rate that held, and the one above it, which did not."""

    seed: int
    below: Observation
    above: Observation


class NoRate(Exception):
    """No rate is the answer, for a reason of one line."""


@dataclass
class Capacity:
    """What became of a variant.

    held: of each seed, the first of which is that of the curve; empty beside a reason.
    seen: every observation, in the order of its run.
    requests: of each run.
    """

    variant: Variant
    limits: Limits
    settings: Settings
    held: list[Held] = field(default_factory=list)
    seen: list[Observation] = field(default_factory=list)
    requests: int | None = None
    reason: str | None = None

    @property
    def curve(self) -> list[Observation]:
        """Return what whole runs of the first seed showed at each rate, lowest first."""
        first = [
            o
            for o in self.seen
            if o.rate is not None and o.seed == self.variant.seed and not o.stopped
        ]
        return sorted({o.rate: o for o in first}.values(), key=lambda o: o.rate or 0.0)

    @property
    def held_back_by(self) -> str:
        """Return what broke first above the capacity, of most seeds."""
        causes = [failures(held.above, self.limits)[0] for held in self.held]
        return max(causes, key=causes.count) if causes else "-"


def failures(seen: Observation, limits: Limits) -> list[str]:
    """Return why a rate does not hold, the worst first; nothing where it does."""
    return [QUEUE_GROWS] * seen.diverges + [
        f"{PREFIX}{name}" for name in limits.broken(seen.metrics)
    ]


def requests_by_rule(at_once: float) -> int:
    """Return how many requests a run has where so many are served at once, in two digits.

    A run is 30 times as long as a request stays, by Little's law, so that the start is a small part
    of it; and at least so long that 30 requests lie beyond a 99th percentile.
    """
    wanted = max(FIRST_REQUESTS, REQUESTS_A_PLACE * at_once)
    digit = 10 ** (math.floor(math.log10(wanted)) - 1)
    return int(math.ceil(wanted / digit) * digit)


def find(
    variant: Variant,
    limits: Limits,
    settings: Settings | None = None,
    near: float | None = None,
) -> Searching:
    """Search for the capacity of a variant: yield probes, be sent observations, return it.

    near: a rate near which it is known to be, from which all seeds look at once.
    """
    capacity = Capacity(variant, limits, settings or Settings())
    try:
        yield from _find(capacity) if near is None else _find_near(capacity, near)
    except NoRate as reason:
        capacity.reason, capacity.held = str(reason), []
    return capacity


def _find(capacity: Capacity) -> Generator[list[Probe], list[Observation], None]:
    variant, settings = capacity.variant, capacity.settings
    size = settings.requests or variant.requests or FIRST_REQUESTS
    (saturated,) = yield from _seen(capacity, [Probe(variant, None, variant.seed, size)])
    at_once = float(saturated.metrics.get("peak_batch") or 1)
    if settings.requests is None and variant.requests is None:
        size = requests_by_rule(at_once)
    capacity.requests = size if settings.duration_s is None else None
    start = float(saturated.metrics.get("requests_per_s") or 1.0)
    if not math.isfinite(start):
        raise NoRate(f"{size} requests leave no time to measure: take more of them (requests=N)")
    middle = settings.power(start)
    first = variant.seed
    (held,) = yield from _together(capacity, [_from_afar(capacity, first, middle, size)])
    seeds = range(first + 1, first + (settings.seeds if variant.seeds_differ else 1))
    found = settings.power(held.below.rate or 1.0)
    others = yield from _together(capacity, [_nearby(capacity, s, found, size) for s in seeds])
    capacity.held = [held, *others]
    if settings.curve:
        powers = sorted({settings.power(settings.rate(found) * share) for share in CURVE})
        known = {o.rate for o in capacity.curve}
        missing = [p for p in powers if settings.rate(p) not in known]
        probes = [_probe(capacity, first, p, size) for p in missing]
        yield from _seen(capacity, [replace(probe, whole=True) for probe in probes])


def _find_near(capacity: Capacity, near: float) -> Generator[list[Probe], list[Observation], None]:
    variant, settings = capacity.variant, capacity.settings
    size = settings.requests or variant.requests or FIRST_REQUESTS
    capacity.requests = size
    seeds = range(variant.seed, variant.seed + (settings.seeds if variant.seeds_differ else 1))
    around = settings.power(near)
    capacity.held = yield from _together(
        capacity, [_nearby(capacity, seed, around, size) for seed in seeds]
    )


def _probe(capacity: Capacity, seed: int, power: int, requests: int) -> Probe:
    rate, settings = capacity.settings.rate(power), capacity.settings
    if settings.duration_s is not None:
        requests = max(1, round(rate * settings.duration_s))
        if capacity.variant.requests is not None:
            requests = min(requests, capacity.variant.requests)
    return Probe(capacity.variant, rate, seed, requests)


def _seen(
    capacity: Capacity, probes: list[Probe]
) -> Generator[list[Probe], list[Observation], list[Observation]]:
    """Have probes made; raises `NoRate` where one was not served."""
    if not probes:
        return []
    observations = yield probes
    capacity.seen += observations
    for seen in observations:
        if not seen.ok:
            raise NoRate(f"{seen.status}: {seen.reason}")
    return observations


def _together(
    capacity: Capacity, searches: Sequence[OneSearch]
) -> Generator[list[Probe], list[Observation], list[Held]]:
    """Run searches beside each other, a probe of each at a time."""
    found: dict[int, Held] = {}
    wanted = {place: next(search) for place, search in enumerate(searches)}
    while wanted:
        observations = yield from _seen(capacity, list(wanted.values()))
        for place, seen in zip(list(wanted), observations, strict=True):
            try:
                wanted[place] = searches[place].send(seen)
            except StopIteration as stop:
                found[place] = stop.value
                del wanted[place]
    return [found[place] for place in sorted(found)]


def _from_afar(capacity: Capacity, seed: int, middle: int, size: int) -> OneSearch:
    """Search from the throughput of a saturated pool, near which capacity mostly is."""
    settings = capacity.settings

    def powers(factor: float) -> int:
        return math.ceil(math.log(factor) / math.log1p(settings.tolerance))

    up, down = powers(FARTHEST_UP), powers(FARTHEST_DOWN)
    return (yield from _search(capacity, seed, size, middle, powers(1.5), (-down, up)))


def _nearby(capacity: Capacity, seed: int, found: int, size: int) -> OneSearch:
    """Search around what another seed found."""
    far = math.ceil(math.log(FARTHEST_UP) / math.log1p(capacity.settings.tolerance))
    return (yield from _search(capacity, seed, size, found, NEAR, (-far, far)))


def _search(
    capacity: Capacity, seed: int, size: int, middle: int, step: int, ends: tuple[int, int]
) -> OneSearch:
    """Step away from `middle`, twice as far each time, until the answer changes; then halve.

    Raises `NoRate` where it never does.
    """
    seen: dict[int, Observation] = {}
    least, most = middle + ends[0], middle + ends[1]
    low = high = None
    power = middle
    while low is None or high is None:
        seen[power] = yield _probe(capacity, seed, power, size)
        broken = failures(seen[power], capacity.limits)
        if broken:
            high = power
            if power <= least:
                raise NoRate(_too_strict(seen[power], capacity.limits))
        else:
            low = power
            if power >= most:
                raise NoRate(_too_loose(seen[power]))
        if low is None or high is None:
            power = max(least, power - step) if broken else min(most, power + step)
            step *= 2
    while high - low > 1:
        power = (low + high) // 2
        seen[power] = yield _probe(capacity, seed, power, size)
        if failures(seen[power], capacity.limits):
            high = power
        else:
            low = power
    return Held(seed, seen[low], seen[high])


def _too_strict(seen: Observation, limits: Limits) -> str:
    if seen.diverges:
        return f"no rate holds: even at {seen.rate:g} a second the queue grows"
    name = limits.broken(seen.metrics)[0]
    value, unit = seen.metrics.get(name), BY_NAME[name].unit
    if value is None:
        return f"{PREFIX}{name}: this workload has no such latency"
    what = f"at {seen.rate:g} a second it is {value:.4g} {unit}"
    return f"no rate meets {limits.text(name)}: even {what}"


def _too_loose(seen: Observation) -> str:
    return (
        f"no rate is too high: {seen.requests} requests hold every limit even at {seen.rate:g} a "
        "second; take more of them (requests=N, duration=SECONDS) or a lower limit"
    )
