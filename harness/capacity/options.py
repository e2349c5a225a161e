"""The options of the command, typed; all others are those of a run."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.capacity.slo import PREFIX, Limits, parse_limits, request_limits
from harness.command.arguments import check_run_option, parse_options
from harness.command.folder import check_folder
from harness.command.ranges import Positive, Real, Whole, out_of_range
from harness.errors import ConfigError

USAGE = """\
usage: python -m harness.capacity +workload=NAME [slo.METRIC=VALUE ...] [OPTION=VALUE ...]

The highest rate of requests that each allocator sustains within limits on latency, with an
interval over seeds; tokens a second and GPU; the curve of latency over rate. Without a limit it is
the highest rate at which the queue does not grow. docs/capacity.md says how it is found.

  slo.METRIC=VALUE     the most that a latency may be: slo.ttft_p99_s=1 slo.tpot_p99_s=0.05, any
                       latency of docs/metrics.md in its unit
  slo.ttft_s=X slo.itl_s=X slo.tpot_s=X slo.e2e_s=X   limits on each request, which
  slo.good_share=0.99  at least this share of them keeps
  also='OPTION=VALUE ...'  more rows, with these options on top: also=hardware=h200; repeatable
  price_per_gpu_hour=X what a GPU costs, for the price of a million tokens
  requests=N           requests of a run; by default 30 for each that is served at once, at least
                       3000; a trace has all of its own
  duration=SECONDS     instead: as many as arrive in so many seconds
  seeds=5              replications, from seed= on
  tolerance=0.02       how far apart the rates are that are tried
  curve=true           false: no runs but those of the search
  jobs=N               runs beside each other; by default as many as there are CPUs
  kept=DIR             where runs are kept, so that none is made twice; results/runs/capacity-kept
  out=DIR              where capacity.json, .png and .html go; results/runs/capacity-TIME

All other options are those of a run (python -m harness --help), without workload.rate: model,
hardware, allocator=[...], engine, software, kv_memory_gib, seed, ...
"""

RANGES = {
    "price_per_gpu_hour": Positive(1e6),
    "requests": Whole(20, 10_000_000),
    "duration": Positive(1e9),
    "seeds": Whole(1, 1000),
    "tolerance": Real(0.002, 0.5),
    "jobs": Whole(1, 1024),
}

#: what says so here, of options of `python -m harness` that mean nothing to a search
INSTEAD = "out=DIR, kept=DIR and jobs=N say here where results go and how runs are made"


@dataclass
class CapacityOptions:
    price_per_gpu_hour: float | None = None
    requests: int | None = None
    duration: float | None = None
    seeds: int = 5
    tolerance: float = 0.02
    curve: bool = True
    jobs: int | None = None
    kept: str = "results/runs/capacity-kept"
    out: str | None = None


@dataclass
class Asked:
    """A command line: its own options, limits, the options of a run, and those of further rows."""

    options: CapacityOptions
    limits: Limits
    run: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)

    @property
    def question(self) -> dict[str, Any]:
        """What the answer depends on, as `capacity.json` has it."""
        return {"limits": self.limits.values, "run": self.run, "also": self.also}


def sorted_out(arguments: Sequence[str], names: Set[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the options of these names, the limits, and the options of a run.

    Limits on each request are both of the last two.  Raises `ConfigError` for what is no option,
    and for options of a run that would change nothing in a search.
    """
    own, limits, run = [], [], []
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{argument}: expected OPTION=VALUE; --help lists the options")
        name = argument.partition("=")[0]
        if name.startswith(PREFIX):
            limits.append(argument)
            if name.removeprefix(PREFIX) in request_limits():
                run.append(argument)
        elif name in names:
            own.append(argument)
        else:
            check_run_option(argument, INSTEAD)
            run.append(argument)
    return own, limits, run


def parse(arguments: Sequence[str]) -> Asked:
    """Return what a command line asks for.  Raises `ConfigError`, one line."""
    names = {each.name for each in fields(CapacityOptions)}
    also = [a.partition("=")[2] for a in arguments if a.startswith("also=")]
    own, limits, run = sorted_out([a for a in arguments if not a.startswith("also=")], names)
    options = parse_options(own, CapacityOptions)
    problem = out_of_range("", options, RANGES)
    if problem is not None:
        raise ConfigError(problem)
    if options.requests is not None and options.duration is not None:
        raise ConfigError("give requests=N or duration=SECONDS, not both")
    _check_also(also)
    check_folder("kept", Path(options.kept).expanduser())
    return Asked(options, parse_limits(limits), run, also)


def _check_also(also: Sequence[str]) -> None:
    for line in also:
        for option in line.split():
            check_run_option(option, INSTEAD)
            if option.startswith(PREFIX):
                raise ConfigError(
                    f"also={option}: limits hold for every row; ask for others by itself"
                )
