"""How far the cost model lies from public measurements, operator by operator.

    python -m tests.cost.validate DATA_DIR

DATA_DIR holds `aiconfigurator/` (NVIDIA's measured attention and GEMM tables) and `vidur/`
(Microsoft's profiles of linear layers and collectives); see docs/cost.md for where they are from.
Every prediction comes from `Roofline` itself, on a one-layer model of the measured shape.  The
constants were fitted to these tables except where `HELD_OUT` says otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from harness.command.tables import markdown_table
from harness.cost import flat
from harness.cost.curves import FloatArray
from harness.cost.roofline import Roofline, Work
from harness.cost.shapes import HardwareSpec, ModelShape
from harness.cost.spec import CostSpec
from tests.cost.parts import roofline_parts
from tests.cost.windows import measured
from tests.places import shipped

#: the measured GPUs, as the data name them
GPUS = ("a100", "h100")
#: operators whose tables played no part in choosing the constants they test
HELD_OUT = frozenset(
    {
        "linear layers (Vidur)",
        *(f"{name} attention {what}" for name in ("decode", "prefill")
          for what in ("within a window", "over fp8")),
    }
)  # fmt: skip
LINEAR = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
ELEMENTWISE = ("input_layernorm", "post_attention_layernorm", "attn_rope", "mlp_act", "add", "add")


@dataclass(frozen=True, slots=True)
class Fit:
    """Relative errors |predicted - measured| / measured of one operator on one GPU."""

    gpu: str
    operator: str
    rows: int
    median: float
    p90: float
    bias: float  # median of predicted / measured; 1 is centred

    @classmethod
    def of(cls, gpu: str, operator: str, predicted: FloatArray, measured: FloatArray) -> Fit:
        """Compare two [rows] arrays of seconds."""
        error = np.abs(predicted - measured) / measured
        median, p90 = np.quantile(error, [0.5, 0.9])
        bias = float(np.median(predicted / measured))
        return cls(gpu, operator, len(measured), float(median), float(p90), bias)


def fits(data_dir: Path, cost: CostSpec) -> Iterator[Fit]:
    """Yield one `Fit` for each operator and measured GPU.

    Raises `FileNotFoundError` when a table is missing.
    """
    for gpu in GPUS:
        hardware = shipped(HardwareSpec, "hardware", f"{gpu}-80gb")
        yield _gemm(data_dir, gpu, hardware, cost)
        yield _decode(data_dir, gpu, hardware, cost)
        yield _prefill(data_dir, gpu, hardware, cost)
        yield from _vidur_layers(data_dir, gpu, hardware, cost)
        yield _all_reduce(data_dir, gpu, hardware, cost)
        yield from _windows(data_dir, gpu, hardware, cost)


# -- aiconfigurator ----------------------------------------------------------------------------
def _table(data_dir: Path, gpu: str, kind: str, name: str) -> pd.DataFrame:
    folder = data_dir / "aiconfigurator" / "data" / f"{gpu}_sxm" / kind
    found = sorted(folder.glob(f"*/*/{name}_perf.parquet"))
    if not found:
        raise FileNotFoundError(f"no {name}_perf.parquet under {folder}")
    return pd.read_parquet(found[-1])


def _attention_table(data_dir: Path, gpu: str, name: str) -> pd.DataFrame:
    table = _table(data_dir, gpu, "attention", f"{name}_attention")
    keep = (table.kv_cache_dtype == "bfloat16") & (table.head_dim == 128) & (table.num_heads >= 8)
    if "window_size" in table:
        keep &= table.window_size == 0
    return table[keep]


def _gemm(data_dir: Path, gpu: str, hardware: HardwareSpec, cost: CostSpec) -> Fit:
    """Shapes of real layers: 2048 <= n, k < 65536, at most 8192 tokens."""
    table = _table(data_dir, gpu, "gemm", "gemm")
    table = table[(table.gemm_dtype == "bfloat16") & (table.m <= 8192)]
    table = table[table.n.between(2048, 65535) & table.k.between(2048, 65535)]
    prices = Roofline(_one_layer(8, 8, 128), hardware, cost).of_blocks(0)
    predicted = [
        flat.matmul_s(prices, 2.0 * m * n * k, n * k)
        for m, n, k in zip(table.m.tolist(), table.n.tolist(), table.k.tolist(), strict=True)
    ]
    return Fit.of(gpu, "matrix product", np.array(predicted), table.latency.to_numpy() * 1e-3)


def _decode(data_dir: Path, gpu: str, hardware: HardwareSpec, cost: CostSpec) -> Fit:
    """Up to 8 query heads a KV head, context of 128 and more, at most 256 sequences."""
    table = _attention_table(data_dir, gpu, "generation")
    table = table[(table.num_heads <= 8 * table.num_key_value_heads) & (table.batch_size <= 256)]
    table = table[table.step >= 127]

    def work(row: pd.Series) -> Work:
        batch, context = int(row.batch_size), int(row.isl + row.step)
        return Work(decode_seqs=batch, decode_context_tokens=batch * context)

    return _attention(gpu, "decode attention", "decode", table, work, hardware, cost)


def _prefill(data_dir: Path, gpu: str, hardware: HardwareSpec, cost: CostSpec) -> Fit:
    """Prompts of 16 tokens and more, at most 65536 tokens together."""
    table = _attention_table(data_dir, gpu, "context")
    table = table[(table.isl >= 16) & (table.batch_size * table.isl <= 65536)]

    def work(row: pd.Series) -> Work:
        new = np.full(int(row.batch_size), int(row.isl), dtype=np.int64)
        return Work(prefill_new=new, prefill_past=np.zeros_like(new))

    return _attention(gpu, "prefill attention", "prefill", table, work, hardware, cost)


def _attention(
    gpu: str,
    operator: str,
    part: str,
    table: pd.DataFrame,
    work: Callable[[pd.Series], Work],
    hardware: HardwareSpec,
    cost: CostSpec,
) -> Fit:
    predicted = []
    for row in table.itertuples():
        model = _one_layer(int(row.num_heads), int(row.num_key_value_heads), int(row.head_dim))
        predicted.append(roofline_parts(Roofline(model, hardware, cost), work(row))[part])
    return Fit.of(gpu, operator, np.array(predicted), table.latency.to_numpy() * 1e-3)


def _one_layer(heads: int, kv_heads: int, head_dim: int) -> ModelShape:
    return ModelShape("one layer", "llama", 1, heads * head_dim, heads, kv_heads, head_dim, 1, 1, 1)


def _windows(data_dir: Path, gpu: str, hardware: HardwareSpec, cost: CostSpec) -> Iterator[Fit]:
    """Where they were measured: layers with a window, and KV in fp8."""
    decode, prefill = (
        _table(data_dir, gpu, "attention", f"{name}_attention")
        for name in ("generation", "context")
    )
    if "window_size" in decode:
        for operator, predicted, seconds in measured(decode, prefill, hardware, cost):
            yield Fit.of(gpu, operator, predicted, seconds)


# -- Vidur -------------------------------------------------------------------------------------
def _vidur_layers(
    data_dir: Path, gpu: str, hardware: HardwareSpec, cost: CostSpec
) -> Iterator[Fit]:
    """One Llama layer at 1 to 8 ranks: its four products, and its small kernels."""
    found = sorted((data_dir / "vidur" / "profiling" / "compute" / gpu).glob("*/*/mlp.csv*"))
    if not found:
        raise FileNotFoundError(f"no mlp.csv under {data_dir / 'vidur'} for {gpu}")
    table = pd.concat([pd.read_csv(path) for path in found])
    parts = [
        roofline_parts(
            Roofline(_vidur_model(row), _ranks(hardware, row), cost),
            Work(decode_seqs=int(row.num_tokens)),
        )
        for row in table.itertuples()
    ]
    for operator, part, names in (
        ("linear layers (Vidur)", "linear", LINEAR),
        ("small kernels (Vidur)", "elementwise", ELEMENTWISE),
    ):
        measured = sum(table[f"time_stats.{name}.median"].to_numpy() for name in names) * 1e-3
        predicted = np.array([costs[part] for costs in parts])
        yield Fit.of(gpu, operator, predicted, measured)


def _vidur_model(row: pd.Series) -> ModelShape:
    head_dim = int(row.n_embd // row.n_head)
    shape = _one_layer(int(row.n_head), int(row.n_kv_head), head_dim)
    return replace(shape, ffn=int(row.n_expanded_embd))


def _ranks(hardware: HardwareSpec, row: pd.Series) -> HardwareSpec:
    return replace(hardware, count=int(row.num_tensor_parallel_workers))


def _all_reduce(data_dir: Path, gpu: str, hardware: HardwareSpec, cost: CostSpec) -> Fit:
    """One node, all workers in it, 2 KB to 64 MB."""
    table = pd.read_csv(data_dir / "vidur" / "profiling" / "network" / f"{gpu}_dgx/all_reduce.csv")
    table = table[(table["rank"] == 0) & (table.devices_per_node == table.num_workers)]
    predicted = []
    for size, ranks in zip(table["size"].tolist(), table.num_workers.tolist(), strict=True):
        model = replace(_one_layer(8, 8, 128), hidden=size // 2)  # one token of `size` bytes
        spec = replace(hardware, count=ranks)
        costs = roofline_parts(Roofline(model, spec, cost), Work(decode_seqs=1))
        predicted.append(costs["all_reduce"] / 2)  # a layer has two
    measured = table["time_stats.all_reduce.median"].to_numpy() * 1e-3
    return Fit.of(gpu, "all-reduce", np.array(predicted), measured)


# -- command -----------------------------------------------------------------------------------
def main(arguments: list[str]) -> int:
    """Print the table of errors; exit status 2 when the data are not there."""
    if len(arguments) != 1:
        print("usage: python -m tests.cost.validate DATA_DIR", file=sys.stderr)
        return 2
    try:
        rows = [_cells(fit) for fit in fits(Path(arguments[0]), CostSpec())]
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    head = ("GPU", "operator", "rows", "median error", "p90 error", "predicted / measured")
    print(markdown_table(head, rows, "llrrrr"))
    return 0


def _cells(fit: Fit) -> tuple[object, ...]:
    note = ", held out" if fit.operator in HELD_OUT else ""
    errors = (f"{fit.median:.1%}", f"{fit.p90:.1%}")
    return fit.gpu.upper(), fit.operator + note, fit.rows, *errors, f"{fit.bias:.2f}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
