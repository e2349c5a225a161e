"""How far attention within windows, and over quantised KV, lies from public measurements.

The tables of vLLM 0.24 on an H100 (aiconfigurator) have KV in fp8, and windows of 128 and 8,192
tokens with heads of 128 dimensions.  They played no part in choosing any constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from harness.cost.kv import layer_groups
from harness.cost.layered import LayerPrices, decode_s, prefill_s
from harness.cost.layers import LayerSpec
from harness.cost.reads import decode_reads
from harness.cost.roofline import Roofline
from harness.cost.shapes import HardwareSpec, ModelShape
from harness.cost.spec import CostSpec

#: sequences at least so many windows long, of which most is behind the window
LONG = 2
KV_DTYPES = {"bfloat16": "auto", "fp8": "fp8"}


def measured(
    decode: pd.DataFrame, prefill: pd.DataFrame, hardware: HardwareSpec, cost: CostSpec
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield an operator's name, and the predicted and measured seconds of its rows.

    Heads of 128 dimensions; batches and lengths as for attention in full.
    """
    decode = decode[
        (decode.head_dim == 128)
        & (decode.num_heads >= 8)
        & (decode.num_heads <= 8 * decode.num_key_value_heads)
        & (decode.batch_size <= 256)
        & (decode.step >= 127)
    ]
    prefill = prefill[
        (prefill.head_dim == 128)
        & (prefill.num_heads >= 8)
        & (prefill.isl >= 16)
        & (prefill.batch_size * prefill.isl <= 65536)
    ]

    @cache
    def layers(heads: int, kv_heads: int, window: int, kv_dtype: str) -> tuple[LayerPrices, ...]:
        kind = LayerSpec("sliding", 1, window) if window else LayerSpec("full", 1)
        model = ModelShape("one layer", "llama", 1, heads * 128, heads, kv_heads, 128, 1, 1, 1)
        model = replace(model, layer_groups=[kind], kv_dtype=KV_DTYPES[kv_dtype])
        assert len(layer_groups(model)) == 1
        return Roofline(model, hardware, cost).layers_of_blocks(0)

    def of(row: pd.Series) -> tuple[tuple[LayerPrices, ...], np.ndarray]:
        key = int(row.num_heads), int(row.num_key_value_heads), int(row.window_size)
        lengths = np.full(int(row.batch_size), int(row.isl + row.step))
        return layers(*key, row.kv_cache_dtype), lengths

    def decoding(row: pd.Series) -> float:
        found, lengths = of(row)
        reads = decode_reads([layer.group for layer in found], lengths)[:, 0]
        return float(decode_s(found, len(lengths), reads))

    def prompts(row: pd.Series) -> float:
        found, lengths = of(row)
        return prefill_s(found, lengths, np.zeros_like(lengths))

    for name, table, price in (("decode", decode, decoding), ("prefill", prefill, prompts)):
        plain = table.kv_cache_dtype == "bfloat16"
        long = (table.window_size > 0) & (table.isl + table.step > LONG * table.window_size)
        for what, rows in (
            ("within a window", table[plain & long]),
            ("over fp8", table[~plain & (table.window_size == 0)]),
        ):
            predicted = np.array([price(row) for row in rows.itertuples()])
            yield f"{name} attention {what}", predicted, rows.latency.to_numpy() * 1e-3
