"""The rules of whichever family the arrays are of; compiled, the choice is made by type."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from allocators.base import IntArray
from allocators.rules import contiguous, hashed, paged, virtual
from allocators.rules.answers import Account, Ask, StepMaps

#: the type of a family's arrays, and the module of its rules
FAMILIES: dict[type, ModuleType] = {
    paged.PagedArrays: paged,
    hashed.HashedArrays: hashed,
    contiguous.ContiguousArrays: contiguous,
    virtual.VirtualArrays: virtual,
}
CALLS = ("lookup", "admit", "grow", "begin_step", "release", "preempt", "usage", "cached_bytes")


def lookup(arrays: Any, request: int, tokens: int) -> int:
    return FAMILIES[type(arrays)].lookup(arrays, request, tokens)


def admit(arrays: Any, row: int, ask: Ask) -> int:
    return FAMILIES[type(arrays)].admit(arrays, row, ask)


def grow(arrays: Any, rows: IntArray, n: int) -> int:
    return FAMILIES[type(arrays)].grow(arrays, rows, n)


def begin_step(arrays: Any) -> StepMaps:
    return FAMILIES[type(arrays)].begin_step(arrays)


def release(arrays: Any, row: int) -> None:
    FAMILIES[type(arrays)].release(arrays, row)


def preempt(arrays: Any, row: int) -> None:
    FAMILIES[type(arrays)].preempt(arrays, row)


def usage(arrays: Any, rows: IntArray, finals: IntArray) -> Account:
    return FAMILIES[type(arrays)].usage(arrays, rows, finals)


def cached_bytes(arrays: Any) -> int:
    return FAMILIES[type(arrays)].cached_bytes(arrays)
