"""Model shapes, weights, KV bytes and the memory the hardware leaves."""

from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from harness.cost import (
    CostSpec,
    HardwareSpec,
    ModelShape,
    kv_bytes_per_token,
    kv_heads_per_rank,
    parameter_count,
)
from harness.cost.kv import kv_geometry
from tests.places import CONF, shipped

#: `hf` says where another file is
MODELS = sorted(path for path in CONF.glob("model/*.yaml") if path.stem != "hf")
SCHEMAS = {"model": ModelShape, "hardware": HardwareSpec, "cost_model": CostSpec}

# Published parameter counts in 1e9: model cards and papers (names say the rounded size).
PARAMETERS = {
    "opt-13b": 12.85, "opt-66b": 65.7, "opt-175b": 174.6,
    "llama-2-7b": 6.74, "llama-2-13b": 13.02, "llama-2-70b": 68.98,
    "llama-3-8b": 8.03, "llama-3-70b": 70.55, "mistral-7b": 7.24,
    "qwen2.5-7b": 7.62, "qwen2.5-32b": 32.76, "qwen2.5-72b": 72.71,
    "qwen3-8b": 8.19, "qwen3-30b-a3b": 30.53, "yi-6b": 6.06, "yi-34b": 34.39,
    "codellama-34b": 33.74, "gpt-oss-20b": 20.91, "gemma-2-9b": 9.24, "gemma-3-27b": 27.01,
    "llama-4-scout": 107.77, "deepseek-v3": 671.03, "deepseek-v2-lite": 15.71,
    "jamba-1.5-mini": 51.57, "qwen3-next-80b-a3b": 79.67, "llama-3.2-11b-vision": 9.78,
    "ministral-8b": 8.02, "gpt-oss-120b": 116.83,
}  # fmt: skip
KIB_A_TOKEN = {
    "opt-13b": 800, "opt-66b": 2304, "opt-175b": 4608,
    "llama-2-7b": 512, "llama-2-13b": 800, "llama-2-70b": 320,
    "llama-3-8b": 128, "llama-3-70b": 320, "mistral-7b": 128,
    "qwen2.5-7b": 56, "qwen2.5-32b": 256, "qwen2.5-72b": 320,
    "qwen3-8b": 144, "qwen3-30b-a3b": 96, "yi-6b": 64, "yi-34b": 240,
    "codellama-34b": 192, "gpt-oss-20b": 48, "gemma-2-9b": 336, "gemma-3-27b": 496,
    "llama-4-scout": 192, "deepseek-v3": 68.625, "deepseek-v2-lite": 30.375,
    "jamba-1.5-mini": 16, "qwen3-next-80b-a3b": 24, "llama-3.2-11b-vision": 128,
    "ministral-8b": 144, "gpt-oss-120b": 72,
}  # fmt: skip


def load(group, name):
    return shipped(SCHEMAS[group], group, name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    assert parameter_count(load("model", name)) / 1e9 == pytest.approx(PARAMETERS[name], rel=0.01)


@pytest.mark.parametrize("name", KIB_A_TOKEN)
def test_kv_bytes_a_token_are_the_published_ones(name):
    assert kv_bytes_per_token(load("model", name)) == KIB_A_TOKEN[name] * 1024


#: not published: for real runs on a CPU
TINY = {"llama-tiny", "gemma3-tiny", "gpt-oss-tiny"}


def test_every_published_model_and_gpu_has_a_file():
    assert {path.stem for path in MODELS} == set(PARAMETERS) | TINY
    assert {path.stem for path in (CONF / "hardware").glob("*.yaml")} == {
        "a100-40gb", "a100-80gb", "h100-80gb", "h200", "l4", "a10g", "rtx-4090", "b200", "mi300x",
    }  # fmt: skip


@pytest.mark.parametrize("path", [*MODELS, *sorted(CONF.glob("hardware/*.yaml"))], ids=str)
def test_a_file_fills_its_dataclass_and_nothing_else(path):
    value = load(path.parent.name, path.stem)  # an unknown key raises
    assert value.name
    required = ("layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "max_context")
    if isinstance(value, HardwareSpec):
        required = ("memory_gb", "bandwidth_gb_s", "tflops", "pcie_gb_s", "interconnect_gb_s")
    assert all(getattr(value, name) > 0 for name in required)


def test_the_cost_file_is_the_dataclass_in_full():
    assert load("cost_model", "roofline") == CostSpec()
    written = OmegaConf.load(CONF / "cost_model" / "roofline.yaml")
    assert list(written) == [item.name for item in fields(CostSpec)]


def test_head_dim_is_one_a_kernel_takes():
    for path in MODELS:
        assert load("model", path.stem).head_dim in (64, 80, 96, 128, 192, 256)


def test_kv_heads_are_split_over_ranks_and_replicated_beyond_them():
    model = load("model", "yi-6b")  # 4 KV heads
    assert [kv_heads_per_rank(model, ranks) for ranks in (1, 2, 3, 4, 8)] == [4, 2, 2, 1, 1]
    assert kv_bytes_per_token(model, 4) == kv_bytes_per_token(model, 1)
    assert kv_bytes_per_token(model, 8) == 2 * kv_bytes_per_token(model, 1)


def test_a_pool_holds_the_heads_of_one_rank_and_counts_the_bytes_of_all():
    model = ModelShape(layers=3, kv_heads=8, head_dim=64, dtype_bytes=2)
    for ranks in (1, 4, 16):
        pool = kv_geometry(model, ranks, capacity_tokens=100, host_tokens=7, max_seqs=5, max_len=50)
        assert pool.kv_heads == kv_heads_per_rank(model, ranks)
        assert pool.bytes_per_token == kv_bytes_per_token(model, ranks)
        assert (pool.capacity_tokens, pool.host_tokens) == (100, 7)
        assert (pool.max_seqs, pool.max_len) == (5, 50)
