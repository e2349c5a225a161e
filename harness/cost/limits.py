"""Which values of a model's shape, a GPU, a server's memory and the cost model make sense.

Each check raises `CostError` with one line that names the option and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.command.ranges import OneOf, Positive, Range, Real, Whole, out_of_range
from harness.cost.kv import KV_FORMATS
from harness.cost.layer_limits import check_layers
from harness.cost.memory import LOGITS_OF, MemorySpec
from harness.cost.shapes import CostError, HardwareSpec, ModelShape
from harness.cost.spec import LARGE_PAGE, SWAP_MERGES, SWAP_OVERLAPS, CostSpec, page_bytes_of

#: beyond any GPU's memory (GiB), bandwidth (GB/s) or rate (TFLOP/s), and any time (us), and far
#: from where arithmetic overflows
MOST = 1e9
SHARE, QUANTITY, COST = Positive(1.0), Positive(MOST), Real(0.0, MOST)

MODEL: Mapping[str, Range] = {
    "family": OneOf(("llama", "opt", "gemma3", "gpt_oss")),
    "layers": Whole(1, 10_000),
    "hidden": Whole(1, 2**20),
    "heads": Whole(1, 2**16),
    "kv_heads": Whole(1, 2**16),
    "head_dim": Whole(1, 2**16),
    "ffn": Whole(1, 2**24),
    "vocab": Whole(1, 2**24),
    "max_context": Whole(1, 2**30),
    "experts": Whole(1, 2**16),
    "active_experts": Whole(1, 2**16),
    "dtype_bytes": OneOf((1, 2, 4, 8)),
    "kv_dtype": OneOf(tuple(KV_FORMATS)),
    "weight_bits": Real(0.0, 64.0),
    "expert_bits": Real(0.0, 64.0),
    "shared_ffn": Whole(0, 2**24),
    "dense_layers": Whole(0, 10_000),
    "dense_ffn": Whole(0, 2**24),
    "rope_theta": Positive(1e12),
    "query_scalar": Real(0.0, 2.0**16),
    "norm_eps": SHARE,
}
HARDWARE: Mapping[str, Range] = {
    "memory_gb": QUANTITY,
    "bandwidth_gb_s": QUANTITY,
    "tflops": QUANTITY,
    "pcie_gb_s": QUANTITY,
    "interconnect_gb_s": QUANTITY,
    "memory_utilization": SHARE,
    "decode_bandwidth_efficiency": SHARE,
    "all_reduce_efficiency": SHARE,
    "decode_floor_us": COST,
    "all_reduce_latency_us": COST,
    "count": Whole(1, 2**16),
}
MEMORY: Mapping[str, Range] = {
    "logits_of": OneOf(LOGITS_OF),
    "logit_bytes": COST,
    "activation_gib": COST,
    "activation_base_gib": COST,
    "graph_gib": COST,
    "context_gib": COST,
    "communication_gib": COST,
}
COST_MODEL: Mapping[str, Range] = {
    "gemm_efficiency": SHARE,
    "weight_bandwidth_efficiency": SHARE,
    # Below 1 two times would add up to more than their sum; powers far above underflow.
    "roofline_exponent": Real(1.0, 32.0),
    "elementwise_bandwidth_efficiency": SHARE,
    "elementwise_floor_us": COST,
    "prefill_efficiency": SHARE,
    "prefill_tile_tokens": Whole(0, 2**20),
    "prefill_floor_us": COST,
    "prefill_bandwidth_efficiency": SHARE,
    "block_decode_tokens": COST,
    "block_prefill_tokens": COST,
    "table_latency_us": COST,
    "pcie_efficiency": SHARE,
    "copy_bandwidth_efficiency": SHARE,
    "swap_transfer_us": COST,
    "swap_merge": OneOf(SWAP_MERGES),
    "swap_overlap": OneOf(SWAP_OVERLAPS),
    "copy_launch_us": COST,
}
#: tables from a page size to a time
PAGE_TIMES = ("map_us", "unmap_us", "create_us", "release_us")


def check_model(model: ModelShape) -> None:
    """Raise `CostError` for a shape that no transformer has."""
    _check("model", model, MODEL)
    if model.heads % model.kv_heads:
        raise CostError(
            f"model.kv_heads must divide the {model.heads} of model.heads, got {model.kv_heads}"
        )
    if model.active_experts > model.experts:
        raise CostError(
            f"model.active_experts must be at most model.experts={model.experts}, "
            f"got {model.active_experts}"
        )
    if model.dense_layers >= model.layers or (model.dense_layers and model.experts == 1):
        raise CostError(
            "model.dense_layers must be some of the layers of a mixture of experts, got "
            f"{model.dense_layers} of {model.layers}"
        )
    if bool(model.dense_layers) != bool(model.dense_ffn):
        raise CostError(
            f"model.dense_layers={model.dense_layers} and model.dense_ffn={model.dense_ffn} must "
            "be given together"
        )
    if model.shared_ffn and model.experts == 1:
        raise CostError("model.shared_ffn is for a mixture of experts, and model.experts is 1")
    check_layers(model)


def check_hardware(hardware: HardwareSpec) -> None:
    """Raise `CostError` for a GPU that there cannot be."""
    _check("hardware", hardware, HARDWARE)


def check_memory(memory: MemorySpec) -> None:
    """Raise `CostError` for a server that keeps less than nothing, or without end."""
    _check("memory", memory, MEMORY)


def check_cost(cost: CostSpec) -> None:
    """Raise `CostError` for a constant with which times would be no times."""
    _check("cost_model", cost, COST_MODEL)
    for name in PAGE_TIMES:
        times: dict[str, float] = getattr(cost, name)
        if LARGE_PAGE not in times:
            raise CostError(
                f"cost_model.{name} needs an entry for {LARGE_PAGE}, the fallback of the rest"
            )
        for size, time_us in times.items():
            try:
                page_bytes_of(size)
            except CostError as error:
                raise CostError(f"cost_model.{name}: {error}") from error
            refusal = COST.refusal(time_us)
            if refusal is not None:
                raise CostError(f"cost_model.{name}: {size} {refusal}, got {time_us!r}")


def _check(group: str, options: object, ranges: Mapping[str, Range]) -> None:
    problem = out_of_range(group, options, ranges)
    if problem is not None:
        raise CostError(problem)
