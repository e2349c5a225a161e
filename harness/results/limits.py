"""What held a run back, in one figure: of its limits the one that held longest."""

from __future__ import annotations

from collections.abc import Mapping

from harness.results.runlog import LIMITS


def main_limit(metrics: Mapping[str, float | int | None]) -> tuple[str, float] | None:
    """Return the limit, of `LIMITS`, that held longest, and its share of the run.

    None for a row that has no such metrics.
    """
    shares = {name: metrics.get(f"limited_by_{name}_share") for name in LIMITS}
    known = {name: share for name, share in shares.items() if share is not None}
    if not known:
        return None
    name = max(known, key=lambda name: known[name])
    return name, known[name]
