"""Compiles a loop, and keeps it on disk: by Numba, for one family of allocators and one clock.

The rules are plain functions.  Numba is told that it may compile each where another one calls it,
and which module answers for a family or a clock.  What it makes is kept in a folder named by the
text of all that was compiled, so that no change to a rule is ever overlooked.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from allocators.prefix import keys as prefix_keys
from allocators.rules import answers, extents, families, pages
from harness.engine.compiled import chunked, clock, keys, queue, state, step, whole_prompts
from workloads import requests

#: modules of plain functions, in which whatever is called may be compiled
PLAIN = (pages, extents, answers, state, queue, step, chunked, whole_prompts)
LOOPS: dict[str, FunctionType] = {
    "chunked": chunked.chunked,
    "continuous": whole_prompts.whole_prompts,
    "static": whole_prompts.whole_prompts,
    "orca": whole_prompts.whole_prompts,
}


@cache
def compiled(policy: str, family: ModuleType, prices: ModuleType) -> Callable[..., int]:
    """Return the loop of a policy, compiled where it is first called, or as it was kept on disk."""
    _teach_rules()
    for module in (*_texts(family), prices):
        _teach(module)
    return _kept(LOOPS[policy], cache_folder(policy, family, prices))


@cache
def compiled_keys() -> Callable[..., None]:
    """Return `keys.fill`, likewise."""
    for module in (keys, prefix_keys, requests):
        _teach(module)
    return _kept(keys.fill, _folder("keys", (keys, prefix_keys, requests)))


def _kept(loop: FunctionType, folder: Path | None) -> Callable[..., Any]:
    """Return a function compiled, and kept in this folder; None: not kept."""
    import numba

    if folder is None:
        return numba.njit(loop)
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:
        kept = numba.njit(cache=True)(loop)
    except RuntimeError:  # Numba found no place for it
        return numba.njit(loop)
    finally:
        numba.config.CACHE_DIR = before
    if not kept.stats.cache_path.startswith(str(folder)):
        return numba.njit(loop)  # where Numba would put it instead, it would not see a rule change

    def call(*args: Any) -> int:
        try:
            return kept(*args)
        except OSError:  # the disk is full, but what was compiled is there all the same
            return kept(*args)

    return call


def is_kept(policy: str, family: ModuleType, prices: ModuleType) -> bool:
    """Say whether the loop is on disk, so that it takes no compiling."""
    folder = cache_folder(policy, family, prices)
    return folder is not None and any(folder.rglob("*.nbc"))


@cache
def cache_folder(policy: str, family: ModuleType, prices: ModuleType) -> Path | None:
    """Return where this loop is kept; None if no folder of ours can be written."""
    modules = (*PLAIN, families, clock, *_texts(family), prices)
    name = f"{LOOPS[policy].__name__}-{family.__name__.rsplit('.', 1)[-1]}"
    return _folder(name, modules)


def _texts(family: ModuleType) -> list[ModuleType]:
    """Return the modules of a family's rules: its own, and those that they call."""
    texts, ours = [family], family.__name__.rpartition(".")[0]
    for text in texts:
        called = [value for value in vars(text).values() if isinstance(value, ModuleType)]
        texts += [one for one in called if one.__name__.startswith(ours) and one not in texts]
    return texts


def _folder(name: str, modules: Iterable[ModuleType]) -> Path | None:
    """Return where what is compiled from these modules is kept."""
    from importlib.metadata import version

    try:
        texts = [inspect.getsource(module) for module in modules]
        # Numba takes up only what it compiled from a file at this very place.
        texts += [version("numba"), version("numpy"), __file__]
        digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
        folder = _root() / digest / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no source, a user without a home, a read-only file system
        return None
    return folder if os.access(folder, os.W_OK) else None


def _root() -> Path:
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"]) / "kv-harness"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kv-harness" / "loops"


@cache
def _teach_rules() -> None:
    """Tell Numba of the plain functions that all loops share, and of those chosen by type."""
    for module in PLAIN:
        _teach(module)
    for name in families.CALLS:
        _by_type(getattr(families, name), families.FAMILIES)
    for name in clock.CALLS:
        _by_type(getattr(clock, name), clock.CLOCKS)


@cache
def _teach(module: ModuleType) -> None:
    """Tell Numba that it may compile a module's functions where they are called."""
    from numba.extending import register_jitable

    for function in _functions(module):
        register_jitable(function)


def _functions(module: ModuleType) -> list[FunctionType]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__
    ]


def _by_type(stub: FunctionType, modules: dict[type, ModuleType]) -> None:
    """Let a call of `stub` be one of the function of its name in the first argument's module."""
    from numba.extending import overload

    @overload(stub, strict=False)
    def choose(first: Any, *others: Any) -> FunctionType:
        return getattr(modules[first.instance_class], stub.__name__)
