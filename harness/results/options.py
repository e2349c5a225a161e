"""Options of several runs: their names, which of them vary, and how a table heads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: options that change no result
FREE_OPTIONS = (
    "engine.compiled", "engine.skip_ahead", "timeline", "workload.description", "workload.source",
)  # fmt: skip
#: last parts of names that say too little to stand alone
VAGUE = ("allocator", "name")


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a nested mapping by their dotted names."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(flat(value, f"{prefix}{name}."))
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def varied(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the options whose value is not the same in all runs, in order of appearance."""
    runs = list(runs)
    names = dict.fromkeys(name for options in runs for name in options)
    return [name for name in names if len({_key(options.get(name)) for options in runs}) > 1]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the last part of each name, or all of it where that would be vague or another's."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return {
        name: part if last.count(part) == 1 and part not in VAGUE else name
        for name, part in zip(names, last, strict=True)
    }


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
