"""An answer as it comes about: asked for in full, and of use wherever it was cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.advise import evidence, fleet, sensitivity
from harness.advise.evidence import Around, Weighed
from harness.advise.fleet import Fleet
from harness.advise.options import Asked
from harness.advise.race import Clock, Known, Race, Ring
from harness.advise.space import Setting, Space, space_of
from harness.capacity.runner import Runner

#: shares of the budget after which the search ends, and after which nothing is tried around it
SEARCH, AROUND = 0.5, 0.8


@dataclass
class Advice:
    """What is known.  Parts that were not come to are None or empty.

    history: incumbents of the search, in order.  searched: it ended by itself.
    weighed: over fresh seeds; that is what is advised.  around: its other values.
    answers, not_asked: under other workloads.  fleet: for a given rate.
    """

    asked: Asked
    space: Space
    history: list[Known] = field(default_factory=list)
    searched: bool = False
    refused: dict[Setting, str] = field(default_factory=dict)
    weighed: Weighed | None = None
    around: list[Around] = field(default_factory=list)
    fleet: Fleet | None = None
    answers: list[sensitivity.Answer] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    requests: int = 0
    runs: int = 0
    kept_runs: int = 0
    interrupted: bool = False

    @property
    def setting(self) -> Setting:
        """What is advised: nothing but defaults until it has been weighed."""
        if self.fleet is not None:
            return self.fleet.setting
        if self.weighed is not None and self.weighed.complete:
            return self.weighed.setting
        return self.space.default


def advise(asked: Asked, told: Callable[[str], None], runner: Runner, advice: Advice) -> None:
    """Fill an `Advice`; Ctrl-C goes through, and leaves what was found.

    Raises `ConfigError`, one line, where nothing can be advised.
    """
    options, clock = asked.options, Clock(asked.options.budget_s)
    ring = Ring(
        advice.space,
        asked.limits,
        runner,
        options.at_least,
        options.requests or 0,
        options.requests,
        advice.refused,
    )
    race = Race(ring, clock, told, advice.history)
    try:
        rivals = _settle(advice, ring, clock, race, told)
        _beyond(advice, ring, clock, rivals, told)
    finally:
        advice.requests = ring.requests
        advice.runs, advice.kept_runs = runner.runs, runner.kept_runs


def _settle(
    advice: Advice, ring: Ring, clock: Clock, race: Race, told: Callable[[str], None]
) -> list[Setting]:
    """Search, weigh, and look around, again while there is something better and time for it.

    Returns the settings that come nearest to what is advised, one for each knob.
    """
    seeds, share = advice.asked.options.seeds, SEARCH
    seen: set[Setting] = set()
    rivals: list[Setting] = []
    while True:
        best = race.run(share)
        advice.searched = race.ended
        if best.setting in seen:
            return rivals
        told(f"{clock.spent_s:.0f} s: {best.setting.label}, weighed over {seeds} other seeds")
        known = {} if advice.weighed is None else advice.weighed.capacities
        weighed = Weighed(best.setting, known)
        advice.weighed = advice.weighed or weighed  # what was weighed before stays until this is
        evidence.weigh(ring, weighed, best.per_gpu, seeds, told)
        advice.weighed = weighed
        if not advice.weighed.capacity.held:
            return []
        seen |= {best.setting, advice.weighed.setting}
        near = evidence.per_gpu(advice.weighed.capacity).mean
        told(f"{clock.spent_s:.0f} s: every other value of each knob")
        advice.around, rivals = evidence.around(ring, advice.weighed, near, clock, AROUND)
        if not any(each.better for each in advice.around) or not clock.has(AROUND):
            return rivals
        race.resume(advice.weighed.setting, near)
        share = AROUND


def _beyond(
    advice: Advice,
    ring: Ring,
    clock: Clock,
    rivals: list[Setting],
    told: Callable[[str], None],
) -> None:
    weighed, options = advice.weighed, advice.asked.options
    assert weighed is not None
    if not weighed.capacity.held:
        return
    near = evidence.per_gpu(weighed.capacity).mean
    if options.rate is not None:
        told(f"{clock.spent_s:.0f} s: servers for {options.rate:g} a second")
        advice.fleet = fleet.choose(
            ring, weighed, options.rate, options.headroom, options.seeds, near
        )
    told(f"{clock.spent_s:.0f} s: other workloads, other clocks")
    advice.not_asked = sensitivity.ask(
        ring, weighed, rivals, near, options.seeds, clock, advice.answers.append
    )


def new_advice(asked: Asked) -> Advice:
    """Return the beginning of an answer.  Raises `ConfigError` for options that make no sense."""
    return Advice(asked, space_of(asked.run, asked.options.search, asked.options.kv_dtypes))
