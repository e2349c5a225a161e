"""What a command line overrides: the points that it runs, and no group left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep
from hydra.types import RunMode

from harness.cli.help import groups, options
from harness.cli.installed import SEARCH_PATH
from harness.comparison.config import OPTIONS, compose
from harness.errors import ConfigError


def parsed(lines: Sequence[str]) -> list[Override]:
    """Parse overrides; raises `ConfigError` where one leaves out a group, Hydra's error others."""
    overrides = OverridesParser.create().parse_overrides(list(lines))
    _check_groups(overrides)
    return overrides


def with_experiment(lines: list[str], multirun: bool) -> tuple[list[Override], bool]:
    """Parse the overrides, behind those that `+experiment=NAME` sweeps over, as Hydra does."""
    overrides = parsed(lines)
    chosen = [o.input_line or "" for o in overrides if o.key_or_group == "experiment"]
    if not chosen:
        return overrides, multirun
    places = [o.input_line or "" for o in overrides if o.key_or_group == SEARCH_PATH]
    hydra = compose(*chosen, *places, with_hydra=True).hydra
    swept = [f"{name}={value}" for name, value in (hydra.sweeper.params or {}).items()]
    overrides = parsed(swept) + overrides
    return overrides, multirun or hydra.mode == RunMode.MULTIRUN


def lists_several(lines: Sequence[str]) -> bool:
    """Whether overrides ask for a sweep: one of them lists values, or brings a sweep of its own."""
    overrides, multirun = with_experiment(list(lines), False)
    return multirun or any(override.is_sweep_override() for override in overrides)


def single_point(overrides: Sequence[Override]) -> list[str]:
    """Return the overrides of a single run; raises `ConfigError` where one lists several values."""
    for override in overrides:
        if override.is_sweep_override():
            line = override.input_line or ""
            raise ConfigError(f"{line} lists several values: add -m to run each of them")
    return [override.input_line or "" for override in overrides]


def grid(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the overrides of every point of a sweep, in Hydra's order: the last varies fastest.

    Of an option that is given twice the last counts, as in Hydra's own sweeper; what is added twice
    is left for Hydra to refuse.
    """
    choices: dict[str, list[str]] = {}
    for number, override in enumerate(overrides):
        key = override.get_key_element()
        name = f"{key} {number}" if override.is_add() else key
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line} is no list of values: hydra/sweeper=optuna searches it"
                )
            choices[name] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices[name] = [override.input_line or ""]
    yield from (list(point) for point in itertools.product(*choices.values()))


def edges(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield points that try each value of a search space, or its ends, one option after another."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key, value = override.get_key_element(), override.value()
        if isinstance(value, IntervalSweep):
            values[key] = [f"{key}={value.start}", f"{key}={value.end}"]
        elif isinstance(value, RangeSweep):
            values[key] = [f"{key}={value.start}", f"{key}={value.stop}"]
        elif override.is_sweep_override():
            values[key] = [f"{key}={each}" for each in override.sweep_string_iterator()]
        else:
            values[key] = [override.input_line or ""]
    first = {key: lines[0] for key, lines in values.items()}
    yield list(first.values())
    for key, lines in values.items():
        yield from (list({**first, key: line}.values()) for line in lines[1:])


def _check_groups(overrides: list[Override]) -> None:
    """Refuse to leave a group out: every run needs one of each."""
    known = groups()
    for override in overrides:
        group = override.key_or_group
        if group not in known:
            if group in OPTIONS and override.is_delete():
                raise ConfigError(f"{override.input_line} leaves {group} out; every run needs it")
            continue
        choices = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
        if override.is_delete() or not all(map(_is_choice, choices)):
            raise ConfigError(
                f"{override.input_line} leaves {group} out; choose one of "
                f"{', '.join(options(group))}"
            )


def _is_choice(value: object) -> bool:
    """Say whether a group's value names an option of it, or several."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_choice, value))
    return isinstance(value, str | QuotedString)
