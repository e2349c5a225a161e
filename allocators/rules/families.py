"""The rules of whichever family the arrays are of; compiled, the choice is made by type."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from allocators.base import IntArray
from allocators.rules import contiguous, hashed, mapping, paged, virtual
from allocators.rules.answers import Account, Answer, Ask, Ended, StepMaps

#: the type of a family's arrays, and the module of its rules
FAMILIES: dict[type, ModuleType] = {
    paged.PagedArrays: paged,
    hashed.HashedArrays: hashed,
    contiguous.ContiguousArrays: contiguous,
    mapping.VirtualArrays: virtual,
}
CALLS = (
    "lookup", "admit", "grow", "fork", "reassign", "begin_step", "release", "preempt",
    "distinct", "usage", "cached_bytes",
)  # fmt: skip


def lookup(arrays: Any, request: int, tokens: int) -> int:
    return FAMILIES[type(arrays)].lookup(arrays, request, tokens)


def admit(arrays: Any, rows: IntArray, ask: Ask) -> Answer:
    return FAMILIES[type(arrays)].admit(arrays, rows, ask)


def grow(arrays: Any, rows: IntArray, n: int, width: int) -> Answer:
    return FAMILIES[type(arrays)].grow(arrays, rows, n, width)


def fork(arrays: Any, parent: int, children: IntArray, ask: Ask) -> Answer:
    return FAMILIES[type(arrays)].fork(arrays, parent, children, ask)


def reassign(arrays: Any, rows: IntArray, parents: IntArray, width: int) -> Answer:
    return FAMILIES[type(arrays)].reassign(arrays, rows, parents, width)


def begin_step(arrays: Any) -> StepMaps:
    return FAMILIES[type(arrays)].begin_step(arrays)


def release(arrays: Any, row: int) -> int:
    return FAMILIES[type(arrays)].release(arrays, row)


def preempt(arrays: Any, row: int) -> int:
    return FAMILIES[type(arrays)].preempt(arrays, row)


def distinct(arrays: Any, rows: IntArray) -> int:
    return FAMILIES[type(arrays)].distinct(arrays, rows)


def usage(arrays: Any, rows: IntArray, finals: IntArray, width: int, ended: Ended) -> Account:
    return FAMILIES[type(arrays)].usage(arrays, rows, finals, width, ended)


def cached_bytes(arrays: Any) -> int:
    return FAMILIES[type(arrays)].cached_bytes(arrays)


def sequences_held(arrays: Any, prompt: int, output: int) -> int:
    """Return how many sequences of such requests an empty pool holds, that share nothing."""
    return FAMILIES[type(arrays)].sequences_held(arrays, prompt, output)
