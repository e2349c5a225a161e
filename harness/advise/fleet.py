"""How many GPUs carry a given rate: servers beside each other, each of one or several GPUs.

Requests that are dealt out at random to n servers arrive at each as at one, at a n-th of the rate,
so the capacity of a server is all that has to be known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.advise.evidence import Weighed, capacities
from harness.advise.race import Ring
from harness.advise.space import BY_NAME, Setting
from harness.capacity.answer import rate as rate_of
from harness.capacity.probe import Observation, Probe
from harness.capacity.search import Capacity, failures


@dataclass(frozen=True)
class Fleet:
    """Servers of one setting that carry a rate.

    a_server: GPUs of a server.  sure, carried: requests a second that one carries, the lower end of
    its interval (that counts) and the mean.  checked: runs of a server's share of the rate, a seed
    each, and held: in how many of them every limit was kept.
    """

    setting: Setting
    rate: float
    servers: int
    a_server: int
    sure: float
    carried: float
    checked: tuple[Observation, ...] = ()
    held: int = 0

    @property
    def gpus(self) -> int:
        return self.servers * self.a_server

    @property
    def margin(self) -> float:
        """The share of the rate that they carry besides."""
        return self.servers * self.carried / self.rate - 1


def fleet_of(setting: Setting, capacity: Capacity, rate: float, headroom: float) -> Fleet:
    """Return the fewest servers of a setting that carry a rate and `headroom` more."""
    found = rate_of(capacity)
    sure = found.mean if found.low is None else found.low
    servers = max(1, math.ceil(rate * (1 + headroom) / sure - 1e-9))
    return Fleet(setting, rate, servers, capacity.variant.gpus, sure, found.mean)


def choose(
    ring: Ring, weighed: Weighed, rate: float, headroom: float, seeds: int, near: float
) -> Fleet:
    """Return the fewest GPUs that carry a rate with what is advised, then the largest margin.

    near: requests a second and GPU of what is advised, about.
    """
    space, now = ring.space, weighed.setting
    settings = [now]
    knob = BY_NAME["gpus"]
    if knob in space.knobs:
        settings += [space.set(now, gpus=value) for value in space.values(knob)]
    known: Mapping[Setting, Capacity] = {
        **capacities(ring, [s for s in settings if s not in weighed.capacities], seeds, near),
        **weighed.capacities,
    }
    fleets = [
        fleet_of(each, known[each], rate, headroom)
        for each in dict.fromkeys(settings)
        if each in known and known[each].held
    ]
    best = min(fleets, key=lambda each: (each.gpus, -each.margin))
    return _checked(ring, best, known[best.setting])


def _checked(ring: Ring, fleet: Fleet, capacity: Capacity) -> Fleet:
    """Run a server's share of the rate with every seed of the evidence."""
    seeds: Sequence[int] = [held.seed for held in capacity.held]
    share = fleet.rate / fleet.servers
    requests = capacity.variant.requests or ring.requests
    seen = ring.runner.observe([Probe(capacity.variant, share, s, requests) for s in seeds])
    held = sum(each.ok and not failures(each, ring.limits) for each in seen)
    return replace(fleet, checked=tuple(seen), held=held)
