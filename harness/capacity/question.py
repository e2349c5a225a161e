"""Which runs a question is about: options with one allocator, checked, without a rate."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from harness.cli.checks import WRONG_INPUT, explained
from harness.cli.help import options
from harness.cli.installed import search_path_override
from harness.cli.overrides import parsed, single_point
from harness.command.arguments import option_name
from harness.comparison.config import compose, run_options, to_config
from harness.comparison.prepared import Prepared, RequestTables, prepared_of
from harness.errors import ConfigError
from harness.report.collection import IDEALISED


@dataclass(frozen=True)
class Variant:
    """One allocator with the options of a run.

    options: as typed, without a rate; label: how it is called in tables.
    own_times: the requests are a trace's, and arrive in its pattern, stretched to a rate.
    requests: how many there are, of a trace or as typed; None: as many as it takes.
    gpus: that serve together.  seed: the first of the seeds.  what: arrives at the rate.
    idealised: it reads how long each answer becomes, as no server can.
    notes: what the user should know of such a run, a line each.
    """

    options: tuple[str, ...]
    allocator: str
    label: str
    own_times: bool = False
    requests: int | None = None
    gpus: int = 1
    seed: int = 0
    what: str = "requests"
    idealised: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def seeds_differ(self) -> bool:
        """Whether another seed is another sample: a trace at its own times is only one."""
        return not self.own_times


def variants_of(lines: Sequence[str], also: Sequence[str] = ()) -> list[Variant]:
    """Return the variants that the options `lines` of a run stand for, one for each allocator.

    also: further options in one text each, on top of `lines` or in place of theirs, for more rows.
    Raises `ConfigError`, one line, for what `python -m harness` would refuse, and for options that
    leave no rate to be found.
    """
    found = _variants(tuple(lines), "")
    for text in also:
        more = tuple(shlex.split(text))
        if not more:
            raise ConfigError("also= has no options")
        names = {option_name(line) for line in more}
        kept = (line for line in lines if option_name(line) not in names)
        found += _variants((*kept, *more), " ".join(more))
    labels = [variant.label for variant in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is asked for twice: each also= must change an option")
    return found


@lru_cache(maxsize=1024)
def composed_of(lines: tuple[str, ...]) -> DictConfig:
    """Return the configuration of options, once a process; a copy is changed, not this."""
    return compose(*lines, *search_path_override(list(lines)))


def _variants(lines: tuple[str, ...], added: str) -> list[Variant]:
    prepared = _prepared(lines)
    config, requests = prepared.config, prepared.requests
    parts = shlex.split(added)
    suffix = " ".join(part for part in parts if not part.startswith("allocator="))
    is_trace = config.workload.kind == "trace" or config.workload.path is not None
    is_typed = any(line.lstrip("+").startswith("workload.num_requests=") for line in lines)
    return [
        Variant(
            lines,
            name,
            f"{name}, {suffix}" if suffix else name,
            own_times=requests.timed,
            requests=len(requests) if is_trace or is_typed else None,
            gpus=config.hardware.count,
            seed=config.seed,
            notes=tuple(prepared.notes),
            what="requests" if requests.after is None else "conversations",
            idealised=config.allocators[name].get("reservation") in IDEALISED,
        )
        for name in config.allocators
    ]


def _prepared(lines: tuple[str, ...]) -> Prepared:
    """Check the options as a run of them would be; raises `ConfigError`."""
    for line in lines:
        if line.startswith("-"):
            raise ConfigError(f"{line}: expected OPTION=VALUE; --help lists the options")
    overrides: list[Override] = []
    try:
        overrides = parsed(lines)
        if not any(o.key_or_group == "workload" for o in overrides):
            raise ConfigError(f"+workload=NAME is needed, one of {', '.join(options('workload'))}")
        single_point(overrides)
        composed = composed_of(lines)
        _check_open(composed)
        config = to_config(composed)
        if config.workload.arrivals in ("poisson", "gamma"):
            config.workload.rate = math.inf  # they are refused without one
        return prepared_of(config, run_options(composed), _tables())
    except WRONG_INPUT as error:
        raise ConfigError(explained(error, list(lines), overrides)) from error


@cache
def _tables() -> RequestTables:
    """Return the requests that variants have in common."""
    return RequestTables()


def _check_open(composed: DictConfig) -> None:
    """Refuse options that leave no rate to be found."""
    workload = composed.workload
    if composed.executor.name != "simulated":
        raise ConfigError("a capacity is searched on a simulated clock: leave out executor=model")
    if workload.rate is not None:
        raise ConfigError(f"workload.rate={workload.rate:g}: the rate is what is searched for")
    if workload.concurrency is not None or workload.arrivals == "closed_loop":
        raise ConfigError("a closed loop has no rate: leave out workload.concurrency")
    if workload.arrivals == "all_at_once":
        raise ConfigError("workload.arrivals=all_at_once has no rate: leave it out")
