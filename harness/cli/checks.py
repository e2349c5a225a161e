"""Checks a command line before Hydra runs it, so that bad input is one line and writes nothing."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.cli.config_dir import no_text_in, with_search_path, without_config_dir
from harness.cli.help import choose_workload, groups, options
from harness.cli.installed import SEARCH_PATH
from harness.cli.points import Points, wants_report
from harness.errors import ConfigError
from harness.results import Claim, ResultsError
from harness.run.config import OPTIONS, compose

#: what composing options may raise
COMPOSING = (YAMLError, HydraException, OmegaConfBaseException)
#: flags of Hydra that run a job, or one for each point of a sweep; all others only show something
RUN_FLAGS, SWEEP_FLAGS = {"-r", "--run"}, {"-m", "--multirun"}


def check(arguments: list[str], points: Points) -> tuple[str | None, list[str]]:
    """Return what is wrong with the arguments, if anything, and the arguments for Hydra.

    Every point that would be run is prepared and handed to `points`. The run directory exists and
    is claimed afterwards; Hydra's arguments name it, since the default holds the time to the
    microsecond and would become another one when Hydra reads it again.  Flags come first there:
    Hydra understands no overrides on both sides of `--config-dir`.
    """
    folder, overrides = None, []
    try:
        others, folder = without_config_dir(arguments)
        flags = {argument for argument in others if argument.startswith("-")}
        if flags - RUN_FLAGS - SWEEP_FLAGS:
            return None, arguments  # Hydra answers, or the user brings a primary configuration
        lines = [argument for argument in others if argument not in flags]
        checked = lines
        if folder is not None:
            flags.add(f"--config-dir={folder}")
            checked = with_search_path(lines, folder)
        overrides, multirun = _with_experiment(checked, bool(flags & SWEEP_FLAGS))
        if not any(o.key_or_group == "workload" for o in overrides):
            return choose_workload(), []
        points.swept = sorted({o.key_or_group for o in overrides if o.is_sweep_override()})
        for point in _points(overrides, multirun):
            composed = compose(*point, with_hydra=True)
            points.check(composed, point)
        hydra = composed.hydra
        key, chosen = ("sweep", hydra.sweep.dir) if multirun else ("run", hydra.run.dir)
        points.claim = Claim(chosen)
        if multirun:
            points.sweeps[points.claim.path] = wants_report(composed)
    except (ConfigError, ResultsError) as error:
        return str(error), []
    except UnicodeDecodeError as error:
        return f"{no_text_in(folder)} is not UTF-8 text: {error.reason}", []
    except COMPOSING as error:
        return one_line(error, lines, overrides), []
    given = any(o.key_or_group == f"hydra.{key}.dir" for o in overrides)
    pinned = [] if given else [f"hydra.{key}.dir={chosen}"]
    return None, [*sorted(flags), *lines, *pinned]


def one_line(error: Exception, lines: list[str], overrides: list[Override]) -> str:
    """Return in one line why options cannot be composed: `lines` as typed, and parsed."""
    if isinstance(error, YAMLError):
        return f"a configuration file cannot be read: {' '.join(str(error).split())}"
    if isinstance(error, MissingConfigException):
        return _unknown_option(error, overrides)
    return _explain(error, lines)


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


def _with_experiment(lines: list[str], multirun: bool) -> tuple[list[Override], bool]:
    """Parse the overrides, behind those that `+experiment=NAME` sweeps over, as Hydra does."""
    parser = OverridesParser.create()
    overrides = parser.parse_overrides(lines)
    _check_groups(overrides)
    chosen = [o.input_line or "" for o in overrides if o.key_or_group == "experiment"]
    if not chosen:
        return overrides, multirun
    places = [o.input_line or "" for o in overrides if o.key_or_group == SEARCH_PATH]
    hydra = compose(*chosen, *places, with_hydra=True).hydra
    swept = [f"{name}={value}" for name, value in (hydra.sweeper.params or {}).items()]
    overrides = parser.parse_overrides(swept) + overrides
    _check_groups(overrides)
    return overrides, multirun or hydra.mode == RunMode.MULTIRUN


def _points(overrides: list[Override], multirun: bool) -> Iterator[list[str]]:
    """Yield the overrides of each run: one, or every point of a sweep."""
    choices = []
    for override in overrides:
        line = override.input_line or ""
        if not override.is_sweep_override():
            choices.append([line])
        elif multirun:
            key = line.partition("=")[0]
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise ConfigError(f"{line} lists several values: add -m to run each of them")
    yield from (list(point) for point in itertools.product(*choices))


def _unknown_option(error: MissingConfigException, overrides: list[Override]) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    known = list(error.options or []) or options(group)
    if group == "allocator" and any(o.key_or_group == f"allocators.{name}" for o in overrides):
        return (
            f"allocator: {name} is compared already: +allocators.{name}=... adds it. Leave it "
            f"out of allocator=[...], which chooses among {', '.join(known)}"
        )
    return f"{group}={name}: no such option{_closest(name, known)}; there are {', '.join(known)}"


def _explain(error: Exception, overrides: list[str]) -> str:
    """Turn Hydra's or OmegaConf's message into one line that names the closest option."""
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown is None:
        cause = str(error.__cause__ or "").partition("\n")[0]
        return " ".join(f"{error} {cause}".split())
    key = unknown.group(1)
    if key == "workload":
        return "write +workload=NAME, with a plus sign"
    others = [o for o in overrides if not o.lstrip("+~").startswith(f"{key}=")]
    try:
        composed = compose(*others)
        known = _keys(composed)
    except (HydraException, OmegaConfBaseException):
        known = []
    new = re.search(r"Key '([^']+)' is not in struct", str(error.__cause__ or error))
    if key in known and new is not None:  # a mapping, which the schema leaves open
        line = next(o for o in overrides if o not in others)
        there_are = ", ".join(map(str, OmegaConf.select(composed, key)))
        return f"{key} has no {new.group(1)}, it has {there_are}; write +{line} to add it"
    if key in known:  # the group is there, and what was given for it holds a name that is not
        parts = [name for name in known if name.startswith(f"{key}.")]
        return f"{key} is given a name that it does not have; there are {', '.join(parts)}"
    return f"unknown option {key}{_closest(key, known)}"


def _keys(composed: DictConfig) -> list[str]:
    """Return every option's full name."""

    def walk(node: object, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, value in node.items():
                if str(name) not in ("hydra", "_target_"):
                    yield f"{prefix}{name}"
                    yield from walk(value, f"{prefix}{name}.")

    return list(walk(OmegaConf.to_container(composed, resolve=False), ""))


def _closest(word: str, known: list[str]) -> str:
    """Return a hint at the names that begin like `word`, or else resemble it, in any case."""
    lower, names = word.lower(), {name.lower(): name for name in known}
    begun = [name for name in names if len(lower) > 1 and name.startswith(lower)]
    found = begun[:3] or difflib.get_close_matches(lower, names, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(names[name] for name in found)}?)" if found else ""
