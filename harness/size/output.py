"""How the sums are printed: tables in GiB, or JSON in bytes."""

from __future__ import annotations

import json
from dataclasses import asdict

from allocators.layers import LayerGroup
from harness.command.tables import text_table
from harness.cost import MemoryBudget
from harness.size.budget import Row, Sized
from harness.size.options import Asked

GIB, KIB = 2**30, 2**10


def tables(sized: Sized, asked: Asked) -> str:
    """Return all tables, a blank line between them."""
    config = sized.config
    head = (
        f"{config.model.name}: {sized.parameters / 1e9:.2f} billion weights; "
        f"{config.hardware.name}; memory={config.memory.name}"
    )
    gpus = "1 GPU" if asked.counts[0] == 1 else f"{asked.counts[0]} GPUs"
    parts = [
        f"{head}\n\nMemory of each GPU, GiB\n{_budget_table(sized.budgets)}",
        f"KV cache, bytes on {gpus}\n{_group_table(sized.rows[: len(asked.kv_dtypes)])}",
    ]
    if any(row.refusal is None for row in sized.rows):
        sequences = _fit_table(sized.rows, asked, tokens=False)
        tokens = _fit_table(sized.rows, asked, tokens=True)
        parts.append(f"Sequences that fit, by their tokens\n{sequences}")
        parts.append(f"Tokens that fit, in sequences of so many\n{tokens}")
    if sized.notes:
        parts.append("\n".join(f"note: {note}" for note in sized.notes))
    return "\n\n".join(parts)


def _budget_table(budgets: list[MemoryBudget]) -> str:
    heads = ("GPUs", "in all", "usable", "weights", "activations", "other", "KV cache")
    rows = [
        (
            budget.ranks,
            *(
                f"{part / GIB:.2f}"
                for part in (
                    budget.total_bytes,
                    budget.usable_bytes,
                    budget.weight_bytes,
                    budget.activation_bytes,
                    budget.overhead_bytes - budget.activation_bytes,
                )
            ),
            f"{budget.left_bytes / GIB:.2f}" if budget.left_bytes > 0 else "-",
        )
        for budget in budgets
    ]
    return text_table(heads, rows, "r" * len(heads))


def _group_table(rows: list[Row]) -> str:
    """Bytes by layer group, of the KV types of one number of GPUs."""
    heads = ("layers", "kind", "keeps", *(f"KiB, {row.kv_dtype}" for row in rows), "for each")
    lines = []
    for at, group in enumerate(rows[0].groups):
        sizes = (_kib(row.groups[at].slot_bytes) for row in rows)
        lines.append((group.layers, group.kind, _kept(group), *sizes, _unit(group)))
    if len(rows[0].groups) > 1:
        growing = [sum(g.slot_bytes for g in row.groups if g.grows) for row in rows]
        layers = sum(group.layers for group in rows[0].groups if group.grows)
        lines.append((layers, "together", "", *map(_kib, growing), "token"))
    return text_table(heads, lines, "rll" + "r" * len(rows) + "l")


def _kib(size: int) -> str:
    return f"{size / KIB:,.2f}".removesuffix(".00")


def _kept(group: LayerGroup) -> str:
    if group.kind == "sliding":
        return f"the last {group.window} tokens"
    if group.kind == "chunked":
        return f"a chunk of {group.window} tokens"
    if group.kind == "cross":
        return f"{group.encoder_tokens} tokens of an encoder"
    return "one state" if group.kind == "state" else "every token"


def _unit(group: LayerGroup) -> str:
    if group.kind == "cross":
        return "encoder token"
    return "token" if group.grows else "sequence"


def _fit_table(rows: list[Row], asked: Asked, *, tokens: bool) -> str:
    heads = ("GPUs", "KV", "KV of all, GiB", *(f"{length:,}" for length in asked.lengths))
    lines = []
    for row in rows:
        if row.refusal is not None:
            continue
        found = {fit.tokens: fit.sequences for fit in row.fits}
        cells = [
            f"{found[length] * (length if tokens else 1):,}" if length in found else "-"
            for length in asked.lengths
        ]
        lines.append((row.gpus, row.kv_dtype, f"{row.pool_bytes / GIB:.2f}", *cells))
    return text_table(heads, lines, "rl" + "r" * (len(heads) - 2))


def record(sized: Sized) -> str:
    """Return all of it as JSON, in bytes over all GPUs but for `budgets`, which are of each."""
    config = sized.config
    budgets = [
        asdict(budget)
        | {"usable_bytes": budget.usable_bytes, "kv_cache_bytes": max(0, budget.left_bytes)}
        for budget in sized.budgets
    ]
    fields = {
        "model": asdict(config.model),
        "hardware": asdict(config.hardware),
        "memory": asdict(config.memory),
        "max_num_seqs": config.engine.max_num_seqs,
        "parameters": sized.parameters,
        "budgets": budgets,
        "rows": [asdict(row) for row in sized.rows],
        "notes": sized.notes,
    }
    return json.dumps(fields, indent=1)
