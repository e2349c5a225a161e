"""Records which sequence holds which stretch of the pool, step by step, for a window of steps.

    python -m harness +workload=beam harness.memory_map=100:300

The pool is cut into STRETCHES. A map holds for each step and stretch the request that holds most of
it, whether several sequences share it, and whether anything is written in it. It is kept in
`memory_map.npz` in the run directory: plain arrays, nothing that is executed when read.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.engine.observer import StepView
from harness.results.atomic import replacing

MEMORY_MAP = "memory_map.npz"
#: stretches that the pool is cut into: about as many as a page shows in pixels
STRETCHES = 256
#: steps that one map can hold
MOST_STEPS = 2000
FREE, HELD, WRITTEN, SHARED = 0, 1, 2, 3


def parse_window(text: str) -> tuple[int, int]:
    """(first step, step after the last) of `START:STOP`; raises ValueError in one line."""
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    start, stop = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 <= start < stop:
        raise ValueError(f"harness.memory_map must be START:STOP in steps, got {text!r}")
    if stop - start > MOST_STEPS:
        raise ValueError(f"harness.memory_map={text}: at most {MOST_STEPS} steps at once")
    return start, stop


@dataclass
class MemoryMap:
    """[steps, stretches] each: `owner`, a request's index plus one, 0 where free; its `kind`."""

    first_step: int
    capacity_tokens: int
    owner: np.ndarray
    kind: np.ndarray


@dataclass
class MapRecorder:
    """An observer of one variant."""

    start: int
    stop: int
    _owners: list[np.ndarray] = field(default_factory=list)
    _kinds: list[np.ndarray] = field(default_factory=list)
    _first: int | None = None
    _capacity: int = 0

    def on_step(self, step: StepView) -> None:
        """Keep the frames of those steps that lie in the window."""
        first, stop = max(step.first, self.start), min(step.first + step.steps, self.stop)
        if first >= stop:
            return
        for number in range(first, stop):
            owner, kind = _frame(step, back=step.first + step.steps - 1 - number)
            if self._first is None:
                self._first = number
                self._capacity = step.allocator.geometry.capacity_tokens
            self._owners.append(owner)
            self._kinds.append(kind)

    def map(self) -> MemoryMap | None:
        """What was recorded, or None if the run ended before the window."""
        if self._first is None:
            return None
        owner, kind = np.stack(self._owners), np.stack(self._kinds)
        return MemoryMap(self._first, self._capacity, owner, kind)


def _frame(step: StepView, back: int) -> tuple[np.ndarray, np.ndarray]:
    """[stretches] owner and kind, `back` steps before the last; those who grow were shorter."""
    capacity = step.allocator.geometry.capacity_tokens
    owner = np.zeros(capacity, dtype=np.uint32)
    written = np.zeros(capacity, dtype=np.uint8)
    for row, request in zip(step.running.rows.tolist(), step.running.owner.tolist(), strict=True):
        for first, slots in step.allocator.extents(row).tolist():
            owner[first : first + slots] = request + 1
        slots = step.allocator.addresses(row)
        slots = slots[: len(slots) - back]
        owner[slots] = request + 1
        # Two are enough to tell that it is shared.
        written[slots] = np.minimum(written[slots] + 1, 2)
    return _thin(owner, written)


def _thin(owner: np.ndarray, written: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From slots to stretches: who holds most of each, and the state of most of what it holds."""
    stretches = min(STRETCHES, len(owner))
    edges = np.linspace(0, len(owner), stretches + 1).round().astype(np.int64)
    stretch = np.repeat(np.arange(stretches), np.diff(edges))
    pairs, counts = np.unique(
        np.stack([stretch, owner.astype(np.int64)]), axis=1, return_counts=True
    )
    thin = np.zeros(stretches, dtype=np.uint32)
    # Written in rising order of the count, so that the largest stays.
    order = np.argsort(counts, kind="stable")
    thin[pairs[0][order]] = pairs[1][order]
    mine = owner == thin[stretch]
    share = np.add.reduceat(mine & (written > 0), edges[:-1]) / np.add.reduceat(mine, edges[:-1])
    shared = np.add.reduceat(mine & (written > 1), edges[:-1])
    kind = np.where(share > 0.5, WRITTEN, HELD)
    kind[shared * 2 > np.add.reduceat(mine, edges[:-1])] = SHARED
    kind[thin == 0] = FREE
    return thin, kind.astype(np.uint8)


def write_maps(run_dir: Path, maps: Mapping[str, MemoryMap]) -> None:
    """Write the maps of a run, by allocator, in one file."""
    arrays: dict[str, np.ndarray] = {"allocators": np.array(list(maps), dtype=np.str_)}
    for index, each in enumerate(maps.values()):
        arrays[f"head_{index}"] = np.array([each.first_step, each.capacity_tokens])
        arrays[f"owner_{index}"] = each.owner
        arrays[f"kind_{index}"] = each.kind
    with replacing(run_dir / MEMORY_MAP) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_maps(run_dir: Path) -> dict[str, MemoryMap]:
    """The maps of a run by allocator; empty where there are none, or none that can be read."""
    try:
        with np.load(run_dir / MEMORY_MAP, allow_pickle=False) as arrays:
            return {
                str(name): MemoryMap(
                    *(int(value) for value in arrays[f"head_{index}"]),
                    arrays[f"owner_{index}"],
                    arrays[f"kind_{index}"],
                )
                for index, name in enumerate(arrays["allocators"])
            }
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
