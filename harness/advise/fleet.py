"""How many GPUs carry a given rate: servers beside each other, each of one or several GPUs.

Requests that are dealt out at random to n servers arrive at each as at one, at a n-th of the rate,
so the capacity of a server is all that has to be known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.advise.evidence import Weighed, capacities
from harness.advise.knobs import BY_NAME
from harness.advise.race import Ring
from harness.advise.space import Setting
from harness.capacity.answer import rate as rate_of
from harness.capacity.probe import Observation, Probe
from harness.capacity.search import Capacity


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
    """Return the fewest GPUs that carry a rate, as servers of what is advised or of another size.

    near: requests a second and GPU of what is advised, about.  Servers of another size are weighed
    only if they hold, on one seed, what fewer GPUs of them would have to.
    """
    space, now = ring.space, weighed.setting
    advised = fleet_of(now, weighed.capacity, rate, headroom)
    known: dict[Setting, Capacity] = dict(weighed.capacities)
    knob = BY_NAME["gpus"]
    others = [space.set(now, gpus=v) for v in space.values(knob)] if knob in space.knobs else []
    probes: dict[Setting, Probe] = {}
    for other in others:
        variant = space.variant(other)
        fewer = 0 if variant is None else (advised.gpus - 1) // variant.gpus
        if variant is not None and other != now and fewer:
            share = rate * (1 + headroom) / fewer / variant.gpus
            probes[other] = ring.probe(variant, share)
    seen = ring.runner.observe(list(probes.values()))
    able = [other for other, each in zip(probes, seen, strict=True) if ring.holds(each)]
    known.update(capacities(ring, [each for each in able if each not in known], seeds, near))
    fleets = [
        fleet_of(each, known[each], rate, headroom)
        for each in (now, *able)
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
    held = sum(map(ring.holds, seen))
    return replace(fleet, checked=tuple(seen), held=held)
