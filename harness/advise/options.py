"""The options of the command, typed; all others are those of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.advise.knobs import AUTO
from harness.capacity.options import sorted_out
from harness.capacity.slo import Limits, parse_limits
from harness.command.arguments import parse_options
from harness.command.folder import check_folder
from harness.command.ranges import Positive, Range, Real, Whole, out_of_range
from harness.errors import ConfigError

USAGE = """\
usage: python -m harness.advise +workload=NAME [slo.METRIC=VALUE ...] [OPTION=VALUE ...]

Searches the settings that sustain the most requests a second and GPU within limits on latency, and
says what each is worth, what is within noise and was left at its default, and what would change
the choice. docs/advice.md says how.

  slo.METRIC=VALUE     limits on latency, as of python -m harness.capacity
  rate=X               requests a second to be carried: the fewest GPUs that do (workload.rate=X)
  headroom=0.1         the share of the rate that they carry besides
  search=[NAME,...]    the knobs that are searched; by default all that no option sets:
                       allocator, block_size, page_size, layout, max_num_seqs, token_budget,
                       preemption, expected_output, prefix_index, eviction, offload, watermark,
                       gpus, kv_dtype
  kv_dtypes=[auto]     what the KV may be stored in: [auto,fp8] tries fp8 too. A model may then say
                       other things; check its accuracy
  budget_s=240         seconds after which nothing further is tried
  at_least=0.02        the smallest difference that is recommended
  seeds=5              replications of the evidence, other ones than those of the search
  requests=N           requests of a run; by default as of python -m harness.capacity
  price_per_gpu_hour=X what a GPU costs, for the price of a million tokens
  jobs=N               runs beside each other; by default as many as there are CPUs
  kept=DIR             where runs are kept, so that none is made twice; results/runs/capacity-kept
  out=DIR              where advice.json and advice.html go; results/runs/advise-TIME

All other options are those of a run (python -m harness --help): model, hardware, engine, software,
kv_memory_gib, seed, ...  A knob that one of them sets is not searched.
"""

RANGES: dict[str, Range] = {
    "rate": Positive(1e9),
    "headroom": Real(0.0, 10.0),
    "budget_s": Positive(1e7),
    "at_least": Real(0.005, 0.5),
    "seeds": Whole(3, 1000),
    "requests": Whole(20, 10_000_000),
    "price_per_gpu_hour": Positive(1e6),
    "jobs": Whole(1, 1024),
}


@dataclass
class AdviceOptions:
    rate: float | None = None
    headroom: float = 0.1
    search: list[str] | None = None
    kv_dtypes: list[str] = field(default_factory=lambda: [AUTO])
    budget_s: float = 240.0
    at_least: float = 0.02
    seeds: int = 5
    requests: int | None = None
    price_per_gpu_hour: float | None = None
    jobs: int | None = None
    kept: str = "results/runs/capacity-kept"
    out: str | None = None


@dataclass
class Asked:
    """A command line: its own options, limits, and the options of a run."""

    options: AdviceOptions
    limits: Limits
    run: list[str] = field(default_factory=list)

    @property
    def question(self) -> dict[str, Any]:
        """What the answer depends on, as `advice.json` has it."""
        found = {
            "limits": self.limits.values,
            "asked": self.run,
            "rate": self.options.rate,
            "knobs": self.options.search,
        }
        # Left out where it is the default, so that answers to a question from before still are.
        types = self.options.kv_dtypes
        return found if types == [AUTO] else {**found, "kv_dtypes": types}


def parse(arguments: Sequence[str]) -> Asked:
    """Return what a command line asks for.  Raises `ConfigError`, one line."""
    names = {each.name for each in fields(AdviceOptions)}
    rate = "workload.rate="
    given = [a.replace(rate, "rate=", 1) if a.startswith(rate) else a for a in arguments]
    own, limits, run = sorted_out(given, names)
    if len([argument for argument in own if argument.startswith("rate=")]) > 1:
        raise ConfigError("give rate= or workload.rate= once")
    options = parse_options(own, AdviceOptions)
    problem = out_of_range("", options, RANGES)
    if problem is not None:
        raise ConfigError(problem)
    check_folder("kept", Path(options.kept).expanduser())
    return Asked(options, parse_limits(limits), run)
