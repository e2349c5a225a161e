"""Shapes, GPUs and budgets that cannot be are one line that names the option and what is allowed.

Each is checked by function, and once through a composed configuration.
"""

from dataclasses import fields, replace

import pytest

from harness.command.ranges import Whole
from harness.comparison import compose, prepare
from harness.cost import (
    CostError,
    CostSpec,
    HardwareSpec,
    MemorySpec,
    ModelShape,
    SoftwareSpec,
)
from harness.cost.limits import MODEL as MODEL_RANGES
from harness.cost.limits import PAGE_TIMES, check_cost, check_hardware, check_memory, check_model
from harness.cost.software import check_software
from harness.errors import ConfigError
from tests.places import CONF, shipped

NAN, INF = float("nan"), float("inf")


MODEL = shipped(ModelShape, "model", "llama-3-8b")
HARDWARE = shipped(HardwareSpec, "hardware", "a100-80gb")
CHECKS = {"model": (check_model, MODEL), "hardware": (check_hardware, HARDWARE),
          "memory": (check_memory, MemorySpec()),
          "cost_model": (check_cost, CostSpec()),
          "software": (check_software, SoftwareSpec())}  # fmt: skip

POSITIVE = ("must be a positive number", (-1.0, 0.0, NAN, INF, -INF, 1e30))
SHARE = ("must be a positive number and at most 1", (-0.5, 0.0, 1.5, NAN, INF, 1e30))
NOT_NEGATIVE = ("must be at least 0 and at most 1e+09", (-1.0, NAN, INF, 1e30))
BAD = {
    **{f"model.{name}": ("must be at", (-1, 0, 2**31)) for name, allowed in MODEL_RANGES.items()
       if isinstance(allowed, Whole) and allowed.least},
    **{f"model.{name}": ("must be at", (-1, 2**31)) for name, allowed in MODEL_RANGES.items()
       if isinstance(allowed, Whole) and not allowed.least},
    "model.kv_dtype": ("must be one of auto, fp32, fp16, bf16, fp8", ("int4", "")),
    **{f"model.{name}_bits": ("must be at least 0 and at most 64", (-1.0, 65.0, NAN))
       for name in ("weight", "expert")},
    "model.dtype_bytes": ("must be one of 1, 2, 4, 8", (-2, 0, 3, 16)),
    "model.family": ("must be one of llama, opt", ("gpt", "")),
    "model.rope_theta": ("must be a positive number", (-1.0, 0.0, NAN, INF)),
    "model.query_scalar": ("must be at least 0 and at most 65536", (-1.0, 1e5, NAN, INF)),
    "model.norm_eps": ("must be a positive number and at most 1", (-1e-5, 0.0, 2.0, NAN, INF)),
    **{f"hardware.{name}": POSITIVE for name in (
        "memory_gb", "bandwidth_gb_s", "tflops", "pcie_gb_s", "interconnect_gb_s")},
    **{f"hardware.{name}": SHARE for name in (
        "memory_utilization", "decode_bandwidth_efficiency", "all_reduce_efficiency")},
    **{f"hardware.{name}": NOT_NEGATIVE for name in ("decode_floor_us", "all_reduce_latency_us")},
    "hardware.count": ("must be at", (-1, 0, 2**20)),
    **{f"memory.{name}": NOT_NEGATIVE for name in (
        "activation_gib", "logit_bytes", "activation_base_gib", "graph_gib", "context_gib",
        "communication_gib")},
    **{f"cost_model.{name}": SHARE for name in (
        "gemm_efficiency", "weight_bandwidth_efficiency", "elementwise_bandwidth_efficiency",
        "prefill_efficiency", "prefill_bandwidth_efficiency", "pcie_efficiency",
        "copy_bandwidth_efficiency")},
    **{f"cost_model.{name}": NOT_NEGATIVE for name in (
        "elementwise_floor_us", "prefill_floor_us", "table_latency_us", "swap_transfer_us",
        "copy_launch_us", "block_decode_tokens", "block_prefill_tokens")},
    "cost_model.swap_merge": ("must be one of none, runs, all", ("pairs",)),
    "cost_model.swap_overlap": ("must be one of none, layers, step", ("always",)),
    **{f"software.{name}": ("must be a positive number", (-1.0, 0.0, NAN, INF, 1e30))
       for name in ("weight_read_slowdown", "small_kernel_slowdown", "all_reduce_slowdown",
                    "paged_decode_slowdown", "paged_prefill_slowdown")},
    **{f"software.{name}": ("must be at least 0 and at most 1e+07", (-1.0, NAN, INF, 2e7))
       for name in ("step_us", "workers_us", "sequence_us", "token_us", "prefill_us",
                    "sampling_us", "table_entry_ns", "request_us", "response_us")},
    "cost_model.roofline_exponent": ("must be at least 1 and at most 32", (0.5, 0.0, NAN, INF)),
    "cost_model.prefill_tile_tokens": ("must be at", (-1, 2**31)),
    "memory.logits_of": ("must be one of sequences, tokens", ("rows",)),
}  # fmt: skip
CASES = [(option, value, text) for option, (text, values) in BAD.items() for value in values]
CASES += [
    ("model.kv_heads", 7, "must divide the 32 of model.heads, got 7"),
    ("model.kv_heads", 64, "must divide the 32 of model.heads, got 64"),
    ("model.active_experts", 2, "must be at most model.experts=1, got 2"),
]
#: text and switches, for which every value that the type allows makes sense
FREE = {
    "model.name", "model.gated_ffn", "model.tied_embeddings", "model.learned_positions",
    "model.linear_bias", "model.qkv_bias", "model.qk_norm",
    "model.post_norms", "model.attention_gate", "model.path", "hardware.name", "memory.name",
    "cost_model.name", "cost_model.file", "software.name", "software.overlapped",
}  # fmt: skip


@pytest.mark.parametrize(("option", "value", "text"), CASES, ids=str)
def test_a_value_that_cannot_be_is_refused(option, value, text):
    group, _, name = option.partition(".")
    check, good = CHECKS[group]
    with pytest.raises(CostError) as caught:
        check(replace(good, **{name: value}))
    message = str(caught.value)
    assert message.startswith(f"{option} {text}")
    assert message.endswith(f"got {value!r}")
    assert "\n" not in message


def test_no_field_is_forgotten():
    checked = {option for option, _, _ in CASES} | {f"cost_model.{table}" for table in PAGE_TIMES}
    checked.add("model.layer_groups")  # tests/cost/test_layers.py
    specs = {"model": ModelShape, "hardware": HardwareSpec, "memory": MemorySpec,
             "cost_model": CostSpec, "software": SoftwareSpec}  # fmt: skip
    there_are = {f"{group}.{item.name}" for group, spec in specs.items() for item in fields(spec)}
    assert checked | FREE == there_are


@pytest.mark.parametrize("group", CHECKS)
def test_every_file_is_within_its_limits(group):
    check, good = CHECKS[group]
    for path in (CONF / group).glob("*.yaml"):
        if path.stem in ("calibrated", "hf"):
            continue  # all it names is a file
        check(shipped(type(good), group, path.stem))


@pytest.mark.parametrize("table", PAGE_TIMES)
@pytest.mark.parametrize(
    ("times", "text"),
    [
        ({}, "needs an entry for 2MiB"),
        ({"2MiB": NAN}, "2MiB must be at least 0 and at most 1e+09, got nan"),
        ({"2MiB": -500.0}, "2MiB must be at least 0 and at most 1e+09, got -500.0"),
        ({"2MiB": 1.0, "64KiB": INF}, "64KiB must be at least 0"),
        ({"2MiB": 1.0, "3MiB": 1.0}, "page size '3MiB' is not a power of two, written as 64KiB"),
        ({"2MiB": 1.0, "0MiB": 1.0}, "page size '0MiB' is not a power of two"),
        ({"2MiB": 1.0, "MiB": 1.0}, "page size 'MiB' is not"),
    ],
    ids=str,
)
def test_a_price_of_mapping_that_cannot_be_is_refused(table, times, text):
    with pytest.raises(CostError) as caught:
        check_cost(replace(CostSpec(), **{table: times}))
    assert str(caught.value).startswith(f"cost_model.{table}")
    assert text in str(caught.value)


SMALL = ("+workload=uniform", "workload.num_requests=4", "allocator=[paged]", "kv_tokens=9000")


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("model.layers=0", "model.layers must be at least 1, got 0"),
        ("model.head_dim=0", "model.head_dim must be at least 1, got 0"),
        ("model.dtype_bytes=0", "model.dtype_bytes must be one of 1, 2, 4, 8, got 0"),
        ("model.kv_heads=7", "model.kv_heads must divide the 40 of model.heads, got 7"),
        ("model.vocab=-1", "model.vocab must be at least 1, got -1"),
        ("hardware.memory_gb=nan", "hardware.memory_gb must be a positive number"),
        ("hardware.memory_gb=inf", "hardware.memory_gb must be a positive number"),
        ("hardware.memory_utilization=nan", "hardware.memory_utilization must be a positive"),
        ("hardware.memory_utilization=inf", "hardware.memory_utilization must be a positive"),
        ("hardware.count=0", "hardware.count must be at least 1, got 0"),
        ("memory.context_gib=-1", "memory.context_gib must be at least 0"),
        ("cost_model.gemm_efficiency=2", "cost_model.gemm_efficiency must be a positive number"),
        ("cost_model.map_us={2MiB: nan}", "cost_model.map_us: 2MiB must be at least 0"),
        ("software.step_us=-1", "software.step_us must be at least 0"),
        ("software.request_us=1e9", "software.request_us must be at least 0 and at most 1e+07"),
        ("engine.max_len=2049", "beyond the 2048 positions that OPT-13B has learned"),
    ],
)
def test_a_configuration_with_such_a_value_is_refused(override, text):
    with pytest.raises(ConfigError) as caught:
        prepare(compose(*SMALL, override))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rotary_positions_beyond_the_context_are_noted():
    """vLLM serves them when it is told to, so they are not refused."""
    rotary = (*SMALL, "model=llama-3-8b")
    assert not prepare(compose(*rotary, "engine.max_len=8192")).notes
    notes = prepare(compose(*rotary, "engine.max_len=8193")).notes
    assert len(notes) == 1
    assert "engine.max_len=8193 is beyond the 8192 positions of Llama-3-8B" in notes[0]
    assert "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1" in notes[0]
