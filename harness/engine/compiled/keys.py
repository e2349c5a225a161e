"""Keys of requests' blocks, for families that look prompts up: made before one may be let in.

A loop stops where it wants more (`UNFED`).  What is at hand are those of whoever runs or waits
and of the next to come, so that memory is bounded by what is live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from allocators.base import IntArray
from allocators.prefix.keys import SECOND, STEP, mix
from allocators.rules.hashed import Keys
from harness.engine.compiled.state import State
from workloads.requests import RequestTable, unique_id

#: blocks whose keys are made in one go, unless those of one step are more
BLOCKS_AHEAD = 1 << 19


def fill(
    known: IntArray,
    request: int,
    block_tokens: int,
    first: IntArray,
    second: IntArray,
) -> None:
    """Write the keys of a request's blocks, as `allocators.prefix.keys.block_keys` gives them.

    `known` are the identities of its leading tokens; it shares no other with anybody.
    """
    a, b, position = np.uint64(0), np.uint64(0), 0
    for block in range(len(first)):
        for _ in range(block_tokens):
            own = known[position] if position < len(known) else unique_id(request, position)
            mixed = mix(np.uint64(own) + np.uint64(position) * STEP)
            a += mixed
            b += mix(mixed ^ SECOND)
            position += 1
        first[block], second[block] = a, b


class KeyFeed:
    """Hands a loop the keys of requests, in order of arrival."""

    def __init__(
        self, table: RequestTable, order: IntArray, block_tokens: int, fill: Callable[..., None]
    ) -> None:
        """`order` are the requests by arrival; `fill` is that of this module, compiled."""
        self._table, self._order, self._fill = table, order, fill
        self._block_tokens = block_tokens
        tokens = table.prompt_tokens[order] + table.output_tokens[order]
        self._blocks = tokens // block_tokens
        self._ends = np.cumsum(self._blocks)
        self._keys = Keys(np.zeros(len(order), dtype=np.int64), *np.zeros((2, 0), dtype=np.int64))

    def feed(self, arrays: Any, state: State) -> Any:
        """Return the arrays with the keys of those who are live, and of the next to come."""
        now, keys, blocks = state.now[0], self._keys, self._blocks
        live = np.concatenate(
            [
                state.groups.owner[: now.running],
                state.places.preempted[: now.preempted],
                np.arange(now.next, now.fed),
            ]
        )
        ahead = max(BLOCKS_AHEAD, int(blocks[live].sum()))
        before = int(self._ends[now.fed - 1]) if now.fed else 0
        stop = int(np.searchsorted(self._ends, before + ahead, side="right"))
        stop = max(stop, min(int(now.arrived), int(now.next) + len(state.groups)))
        fresh = np.arange(now.fed, stop)
        whose = np.concatenate([live, fresh])
        ends = np.cumsum(blocks[whose])
        first, second = np.empty((2, int(ends[-1])), dtype=np.int64)
        for who, end in zip(whose.tolist(), ends.tolist(), strict=True):
            n, start = int(blocks[who]), int(keys.starts[who])
            to = slice(end - n, end)
            if who < now.fed:
                first[to] = keys.first[start : start + n]
                second[to] = keys.second[start : start + n]
            else:
                self._make(who, first[to], second[to])
        keys.starts[whose] = ends - blocks[whose]
        self._keys = Keys(keys.starts, first, second)
        now.fed = stop
        return arrays._replace(keys=self._keys)

    def _make(self, who: int, first: IntArray, second: IntArray) -> None:
        index = int(self._order[who])
        known = self._table.prompt_ids(index)
        if known is None:
            known = self._keys.first[:0]
        self._fill(known, index, self._block_tokens, first, second)
