"""The key of a job: its resolved configuration and the code that runs it, in one hash.

Two jobs of one key have the same results, but for what is measured on a clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from harness.comparison.config import run_options
from harness.results.options import flat

#: the packages whose code decides what a job's results are
OWN = ("allocators", "harness", "kernels", "workloads")
#: hexadecimal digits of a key: collisions are out of the question at any size of a sweep
DIGITS = 24


def job_key(composed: DictConfig) -> str:
    """Return the key of a composed configuration, 24 hexadecimal digits.

    It covers the content of files that the configuration names (a trace, a calibration), the size
    and date of what lies in a folder (a checkpoint), and the source of allocators of other
    packages.
    """
    return options_key(run_options(composed))


def options_key(options: dict[str, Any]) -> str:
    """Return the key of a configuration as plain data, as `run_options` returns it."""
    packages = {*OWN, *map(_package, (options.get("allocators") or {}).values())}
    parts = [options, [_source(name) for name in sorted(packages)], _files(options)]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _package(knobs: Any) -> str:
    target = knobs.get("_target_") if isinstance(knobs, dict) else None
    return str(target).partition(".")[0]


@cache
def _source(package: str) -> str:
    """Return the hash of a package's or a module's code, once a process."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return ""
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    files = [path for root in roots for path in sorted(root.rglob("*"))]
    if not roots and spec.origin is not None:
        files = [Path(spec.origin)]
    digest = hashlib.sha256()
    for path in files:
        if path.suffix in (".py", ".csv") and path.is_file():
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _files(options: dict[str, Any]) -> dict[str, Any]:
    """Return a hash of each file and folder that an option names, by the option."""
    found: dict[str, Any] = {}
    for name, value in flat(options).items():
        names_a_file = name.rpartition(".")[2] in ("path", "file", "weights")
        # An empty path is none; as a path it would be the working directory, and all in it.
        if names_a_file and isinstance(value, str) and value:
            found[name] = _content(Path(value).expanduser())
    return found


def _content(path: Path) -> Any:
    if path.is_file():
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns)
    files: Iterable[Path] = sorted(path.rglob("*")) if path.is_dir() else ()
    return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]


@cache
def _digest(path: Path, size: int, modified_ns: int) -> str:
    """Return the hash of a file's content, read anew when it has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
