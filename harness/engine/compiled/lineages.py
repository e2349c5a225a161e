"""Beams of requests, for a loop that serves them: drawn before one may be let in.

A loop stops where it wants more (`UNFED`).  There is room for the beams of all that can run at
once, and of as many behind them, so that memory is bounded by what is live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allocators.base import IntArray
from harness.engine.compiled.state import FREE_BEAMS, State


class BeamFeed:
    """Hands a loop the beams of requests, in order of arrival."""

    def __init__(self, draw: Callable[[int, int], IntArray]) -> None:
        """`draw` returns the beams of a request of so many beam steps, [steps, width]."""
        self._draw = draw

    def feed(self, arrays: Any, state: State) -> Any:
        """Draw the beams of those who come next, as many as there is room for; return `arrays`."""
        now = state.now[0]
        while now.fed < len(state.requests) and now.free_beams:
            request = state.requests[now.fed]
            now.fed += 1
            now.free_beams -= 1
            request.beams_at = state.columns[FREE_BEAMS, now.free_beams]
            steps = request.output_tokens - 1
            state.lineage[request.beams_at, :steps] = self._draw(int(request["index"]), int(steps))
        return arrays
