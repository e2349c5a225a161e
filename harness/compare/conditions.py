"""What must be alike for two runs to be compared: the configuration, and for clocks the machine.

The allocators' own settings are what is under test, so they may differ; all else may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from harness.results.options import FREE_OPTIONS, flat

#: sections of the configuration that change no result, or are themselves under test
FREE_SECTIONS = ("allocators", "harness", "notes", "report")
#: options that only a real model reads
REAL_OPTIONS = (
    *("model.rope_theta", "model.norm_eps", "model.query_scalar"),
    *("sampling.temperature", "sampling.top_p"),
)
#: options that size the pool where no size is given, and are read for nothing else
POOL_OPTIONS = ("hardware.memory_gb", "hardware.memory_utilization")
#: what a number measured on a clock depends on, besides the code
ENVIRONMENT = (
    "system",
    "machine",
    "cpu_model",
    "cpu_cores_usable",
    "implementation",
    "python",
    "packages.numpy",
    "gpu.name",
)
ENVIRONMENT_GPU = ("packages.torch", "packages.triton", "gpu.cuda")
ABSENT = "(absent)"


def full_identity(config: Mapping[str, Any]) -> str:
    """Equal for two configurations that differ in nothing that could change a result."""
    allocators = config.get("allocators")
    return json.dumps([conditions(config), allocators], sort_keys=True)


def conditions(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that must be equal, by dotted name; of a file only its name counts.

    An option that a run does not name is younger than the run, and stands at its default: defaults
    are chosen so that they change nothing.
    """
    leaves = {**_defaults(), **_leaves(config)}
    kept = {name: value for name, value in leaves.items() if name not in FREE_OPTIONS}
    if kept.get("executor.name") != "model":
        kept = {name: value for name, value in kept.items() if not _only_real(name)}
    if kept.get("executor.name") == "model" or kept.get("kv_tokens") or kept.get("kv_memory_gib"):
        kept = {name: value for name, value in kept.items() if not _sizes_the_pool(name)}
    for name, value in kept.items():
        if name.rpartition(".")[2] == "path" and isinstance(value, str):
            kept[name] = PurePath(value).name
    return kept


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: part for name, part in config.items() if name not in FREE_SECTIONS})


@lru_cache(maxsize=1)
def _defaults() -> dict[str, Any]:
    from harness.comparison.config import Config  # not with the module: it brings all of Hydra

    return _leaves(asdict(Config()))


def _only_real(name: str) -> bool:
    executor = name.startswith("executor.") and name != "executor.name"
    return executor or name in REAL_OPTIONS


def _sizes_the_pool(name: str) -> bool:
    return name.startswith("memory.") or name in POOL_OPTIONS


def config_differences(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One text for each option that differs, `name: old -> new`; real or not decides first.

    Limits on requests are left out: they count who keeps them, and change nothing else.
    """
    texts = _differences(*(_limits(conditions(c), False) for c in (baseline, current)))
    other = [text for text in texts if text.startswith("executor.name:")]
    return other or texts


def limit_differences(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """One text for each limit on requests that differs."""
    return _differences(*(_limits(conditions(c), True) for c in (baseline, current)))


def _limits(leaves: Mapping[str, Any], wanted: bool) -> dict[str, Any]:
    """Return the limits on requests (section `slo`), or all that are none."""
    return {name: v for name, v in leaves.items() if name.startswith("slo.") == wanted}


def settings_differences(
    baseline: Mapping[str, Any], current: Mapping[str, Any], allocator: str
) -> list[str]:
    """One text for each of an allocator's own settings that differs."""
    old, new = (_section(_section(c, "allocators"), allocator) for c in (baseline, current))
    return _differences(flat(old), flat(new))


def environment_differences(environments: Iterable[Mapping[str, Any]]) -> list[str]:
    """One text for each fact that is not the same in all and that a clock depends on."""
    leaves = [flat(environment) for environment in environments]
    names = list(ENVIRONMENT)
    if any(leaf.get("gpu.name") for leaf in leaves):
        names += ENVIRONMENT_GPU
    texts = []
    for name in names:
        values = list(dict.fromkeys(str(leaf.get(name)) for leaf in leaves))
        if len(values) > 1:
            texts.append(f"{name}: {' -> '.join(values)}")
    return texts


def first_few(texts: Sequence[str], at_most: int = 3) -> str:
    """The first texts in one line, and how many more there are."""
    more = len(texts) - at_most
    return "; ".join(texts[:at_most]) + (f"; and {more} more" if more > 0 else "")


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    texts = []
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name, ABSENT), new.get(name, ABSENT)
        if before != after:
            texts.append(f"{name}: {before} -> {after}")
    return texts
