"""Checks a command line before Hydra runs it, so that bad input is one line and writes nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.cli.config_dir import no_text_in, with_search_path, without_config_dir
from harness.cli.help import choose_workload, options
from harness.cli.overrides import single_point, with_experiment
from harness.cli.points import Points
from harness.cli.sweeps.checks import checked_sweep
from harness.comparison.config import Config, compose
from harness.errors import ConfigError
from harness.results import Claim, ResultsError

#: flags of Hydra that run a job, or one for each point of a sweep; all others only show something
RUN_FLAGS, SWEEP_FLAGS = {"-r", "--run"}, {"-m", "--multirun"}
#: where a single run goes, and where a sweep does
RUN_DIR, SWEEP_DIR = "hydra.run.dir", "hydra.sweep.dir"
#: what composing a configuration raises for a mistake of the user's
WRONG_INPUT = (
    ConfigError, ResultsError, YAMLError, UnicodeDecodeError, HydraException, OmegaConfBaseException
)  # fmt: skip


def check(arguments: list[str], points: Points) -> tuple[str | None, list[str]]:
    """Return what is wrong with the arguments, if anything, and the arguments for Hydra.

    Every point that would be run is prepared and handed to `points`, which hold the sweep, if it is
    one. The run directory exists and is claimed afterwards; Hydra's arguments name it, since the
    default holds the time to the microsecond and would become another one when Hydra reads it
    again.  Flags come first there: Hydra understands no overrides on both sides of `--config-dir`.
    """
    folder, overrides, lines = None, [], []
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
        overrides, multirun = with_experiment(checked, bool(flags & SWEEP_FLAGS))
        if not any(o.key_or_group == "workload" for o in overrides):
            return choose_workload(), []
        if multirun:
            _refuse(overrides, RUN_DIR, f"of a single run, and this is a sweep: {SWEEP_DIR}=DIR")
            points.sweep = checked_sweep(checked, overrides, points)
            return None, []
        point = single_point(overrides)
        composed = compose(*point, with_hydra=True)
        points.only = points.check(composed, point)
        spec = points.only.config.sweep
        if spec.resume or spec.maximize is not None:
            raise ConfigError("sweep.resume and sweep.maximize are options of -m")
        if composed.hydra.mode != RunMode.MULTIRUN:
            _refuse(overrides, SWEEP_DIR, f"of a sweep, and this is a single run: {RUN_DIR}=DIR")
        chosen = composed.hydra.run.dir
        points.claim = Claim(chosen)
        given = any(o.key_or_group == RUN_DIR for o in overrides)
        pinned = [] if given else [f"{RUN_DIR}={chosen}"]
        if composed.hydra.mode != RunMode.MULTIRUN:
            with open_dict(composed):
                composed.hydra.run.dir = chosen
                composed.hydra.overrides.hydra += pinned
            points.composed = composed
    except WRONG_INPUT as error:
        return explained(error, lines, overrides, folder), []
    return None, [*sorted(flags), *lines, *pinned]


def _refuse(overrides: Sequence[Override], option: str, why: str) -> None:
    """Raise `ConfigError` where an option is given that would change nothing."""
    if any(o.key_or_group == option for o in overrides):
        raise ConfigError(f"{option} is the folder {why} says where it goes")


#: Hydra's plugins that docs/sweeps.md names, and the extra that installs each
PLUGINS = {
    "hydra/launcher": {
        "joblib": "joblib", "ray": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm",
    },
    "hydra/sweeper": {"optuna": "optuna"},
}  # fmt: skip


def explained(
    error: Exception,
    lines: list[str],
    overrides: Sequence[Override] = (),
    folder: Path | None = None,
) -> str:
    """Return in one line what is wrong, of an error of WRONG_INPUT that the overrides `lines` gave.

    `overrides` are the same, parsed, as far as they could be.
    """
    if isinstance(error, ConfigError | ResultsError):
        return str(error)
    if isinstance(error, YAMLError):
        return f"a configuration file cannot be read: {' '.join(str(error).split())}"
    if isinstance(error, UnicodeDecodeError):
        return f"{no_text_in(folder)} is not UTF-8 text: {error.reason}"
    if isinstance(error, MissingConfigException):
        return _unknown_option(error, overrides)
    return _explain(error, lines)


def _unknown_option(error: MissingConfigException, overrides: Sequence[Override]) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group in PLUGINS:
        known = sorted(error.options or [])
        extra = PLUGINS[group].get(name)
        needs = f" is not installed: pip install 'kv-harness[{extra}]'" if extra else ""
        return f"{group}={name}{needs or ': no such option'}; there are {', '.join(known)}"
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
    if key == "out":
        return f"unknown option out: give {RUN_DIR}=DIR, or for a sweep {SWEEP_DIR}=DIR"
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
        parts = [name for name in known if name.startswith(f"{key}.")] or _parts_of_each(key)
        return f"{key} is given a name that it does not have; there are {', '.join(parts)}"
    return f"unknown option {key}{_closest(key, known)}"


def _parts_of_each(key: str) -> list[str]:
    """Return the names that each element of an option has, which is a list of sections."""
    kind: Any = Config
    for part in key.split("."):
        kind = get_type_hints(kind)[part]
    return [field.name for element in get_args(kind)[:1] for field in fields(element)]


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
    """Return a hint at the names that begin like `word`, or else are nearest to it, in any case."""
    lower, names = word.lower(), {name.lower(): name for name in known}
    begun = [name for name in names if len(lower) > 1 and name.startswith(lower)]
    found = sorted(begun, key=len)[:3] or _nearest(lower, list(names))
    return f" (did you mean {' or '.join(names[name] for name in found)}?)" if found else ""


def _nearest(word: str, names: list[str]) -> list[str]:
    """Return up to three names as near to `word` as the nearest, or almost; the shortest first."""
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    likeness = [difflib.SequenceMatcher(None, name, word).ratio() for name in near]
    return sorted(
        (n for n, x in zip(near, likeness, strict=True) if x > likeness[0] - 0.1), key=len
    )
