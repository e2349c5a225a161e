"""The curve as a table on the screen, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from harness.command.tables import text_table
from harness.hitcurve.curve import CurvePoint
from harness.hitcurve.trace import BlockTrace
from harness.results.atomic import write_text

CSV_COLUMNS = (
    "policy", "order", "capacity_blocks", "capacity_tokens", "hits", "blocks", "hit_rate",
)  # fmt: skip


def name_of(point: CurvePoint) -> str:
    """How a policy is called in the table and the figure."""
    return point.policy if point.order == "touch" else f"{point.policy}, deepest first"


def table(points: list[CurvePoint]) -> str:
    """Return one line a policy and one column a capacity, hit rates in percent."""
    bounds = list(dict.fromkeys(point.capacity_blocks for point in points))
    heads = ["unbounded" if bound is None else f"{bound:,}" for bound in bounds]
    rates = {(name_of(p), p.capacity_blocks): 100 * p.hit_rate for p in points}
    names = list(dict.fromkeys(name_of(point) for point in points))
    rows = [(name, *(f"{rates[name, bound]:.3f}" for bound in bounds)) for name in names]
    return text_table(("blocks", *heads), rows)


def write_csv(path: Path, points: list[CurvePoint], block_tokens: int) -> None:
    """Write one line a point; the capacity of an unbounded cache is `inf`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for p in points:
        blocks = "inf" if p.capacity_blocks is None else p.capacity_blocks
        tokens = "inf" if p.capacity_blocks is None else p.capacity_blocks * block_tokens
        writer.writerow([p.policy, p.order, blocks, tokens, p.hits, p.blocks, f"{p.hit_rate:.8f}"])
    write_text(path, text.getvalue())


def write_json(path: Path, points: list[CurvePoint], trace: BlockTrace, source: str) -> None:
    """Write the trace's counts and the points; the capacity of an unbounded cache is null."""
    record = {
        "trace": source,
        "block_tokens": trace.block_tokens,
        "requests": len(trace.starts) - 1,
        "blocks": len(trace.blocks),
        "distinct_blocks": trace.distinct,
        "points": [
            {
                "policy": p.policy,
                "order": p.order,
                "capacity_blocks": p.capacity_blocks,
                "hits": p.hits,
                "hit_rate": p.hit_rate,
            }
            for p in points
        ],
    }
    write_text(path, json.dumps(record, indent=1) + "\n")
