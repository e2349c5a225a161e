"""Every numeric option of the schema, and a configuration in which it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import get_args, get_origin, get_type_hints

from harness.comparison.config import Config

#: a run of some milliseconds
TINY = (
    "+workload=uniform", "workload.num_requests=2", "workload.prompt.high=40",
    "workload.prompt.low=2", "workload.output={low: 2, high: 9}", "kv_tokens=600",
    "model=llama-tiny", "allocator=[paged]", "engine.max_len=128",
    "engine.max_num_seqs=8", "report=none",
)  # fmt: skip
#: options by the beginning of their name, and what makes them count; the first that fits
CONTEXTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("engine.host_gib", ("engine.preemption=swap",)),
    ("sampling.n", ("sampling.mode=parallel",)),
    ("sampling.t", ("sampling.mode=parallel",)),
    ("sampling.width", ("sampling.mode=beam",)),
    ("sampling.beam", ("sampling.mode=beam",)),
    ("sampling.", ("sampling.mode=speculative",)),
    ("kv_memory_gib", ("kv_tokens=null",)),
    ("memory.", ("kv_tokens=null",)),
    ("hardware.memory", ("kv_tokens=null",)),
    ("workload.concurrency", ("workload.concurrency=1",)),
    ("workload.burstiness", ("workload.rate=2",)),
    ("workload.num_prefixes", ("workload.prefix_tokens=9",)),
    ("workload.prefix_zipf", ("workload.prefix_tokens=9", "workload.num_prefixes=3")),
    *((f"workload.{name}", ("workload.kind=conversation", "workload.too_long=truncate",
                            "workload.turns={kind: fixed, value: 2}"))
      for name in ("num_conversations", "turns", "think_time_s", "max_context_tokens")),
    ("executor.pool", ("executor=model", "kv_tokens=null")),
    ("executor.", ("executor=model",)),
)  # fmt: skip
#: of a length distribution, by the option that it needs
LENGTHS = {
    "value": "{kind: fixed, value: 9}",
    "mean": "{kind: lognormal, mean: 9, sigma: 1, low: 2, high: 20}",
    "sigma": "{kind: lognormal, mean: 9, sigma: 1, low: 2, high: 20}",
    "std": "{kind: normal, mean: 9, std: 2, high: 20}",
    "exponent": "{kind: zipf, exponent: 1, high: 20}",
}
#: knobs of the allocators, which the schema does not know
KNOBS = {
    "allocators.paged.block_size": (),
    "allocators.paged.watermark": (),
    "allocators.paged.window_share": (
        "allocators.paged.groups=split",
        "model.layer_groups=[{kind: full, layers: 2}, {kind: sliding, layers: 2, window: 9}]",
    ),
    "allocators.paged.retention_tokens": (
        "allocators.paged.prefix_index=hash",
        "model.layer_groups=[{kind: full, layers: 2}, {kind: sliding, layers: 2, window: 9}]",
    ),
    "allocators.virtual.reclaim_free": (
        "allocator=[virtual]",
        "allocators.virtual.rules=paper",
        "kv_tokens=99999",
    ),
}


def numeric_options(schema: type = Config, prefix: str = "") -> Iterator[str]:
    """Yield the full name of every option that is a number."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        if get_origin(hints[item.name]) is list:  # of layer groups: tests/cost/test_layers.py
            continue
        kinds = set(get_args(hints[item.name])) or {hints[item.name]}
        if any(is_dataclass(kind) for kind in kinds):
            yield from numeric_options(hints[item.name], f"{prefix}{item.name}.")
        elif kinds & {int, float}:
            yield f"{prefix}{item.name}"


def context(option: str) -> tuple[str, ...]:
    """Return the overrides, beside `TINY`, with which an option counts."""
    more: tuple[str, ...] = next((m for begins, m in CONTEXTS if option.startswith(begins)), ())
    parent, _, name = option.rpartition(".")
    if parent in ("workload.prompt", "workload.output", "workload.turns") and name in LENGTHS:
        more += (f"{parent}={LENGTHS[name]}",)
    return more
