"""In words: whether the allocators of a real run emitted the same tokens, and what served them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.runlog import ResultRow

#: digits of a digest that are shown
SHORT = len("sha256:") + 12


def outputs_sentence(rows: Sequence[ResultRow]) -> str | None:
    """Say which rows emitted the same tokens; None where no tokens were emitted."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row.ok and row.output_digest:
            groups.setdefault(row.output_digest, []).append(row.allocator)
    if not groups:
        return None
    if len(groups) == 1:
        digest, names = next(iter(groups.items()))
        if len(names) == 1:
            return f"tokens of {names[0]} ({digest[:SHORT]})"
        return f"the same tokens from all {len(names)} allocators ({digest[:SHORT]})"
    parts = [f"{', '.join(names)} ({digest[:SHORT]})" for digest, names in groups.items()]
    return f"the tokens differ: {'; '.join(parts)}"


def loop_sentence(rows: Sequence[ResultRow]) -> str | None:
    """Say which rows a compiled loop has served; None where none was."""
    compiled = [row.allocator for row in rows if row.loop == "compiled"]
    if not compiled:
        return None
    others = [row.allocator for row in rows if row.loop == "steps"]
    stepped = f", {', '.join(others)} step by step" if others else ""
    return f"{', '.join(compiled)} compiled{stepped}"
