"""What sizes the pool is no condition where the pool's size is given."""

import pytest

from harness.compare.conditions import config_differences

NOMINAL = {"memory_gb": 40.0, "memory_utilization": 0.9}
REPORTED = {"memory_gb": 39.5, "memory_utilization": 0.9}


def config(hardware, **options):
    return {"hardware": hardware, **options}


@pytest.mark.parametrize("size", [{"kv_tokens": 9000}, {"kv_memory_gib": 12.0}])
def test_a_given_pool_may_be_compared_whatever_the_gpu_would_leave(size):
    old = config(NOMINAL, **size)
    new = config(REPORTED, memory={"name": "vllm-0.19", "context_gib": 0.25}, **size)
    assert config_differences(old, new) == []
    other = config({**REPORTED, "count": 2}, **size)
    assert config_differences(old, other) == ["hardware.count: 1 -> 2"]


def test_an_open_pool_depends_on_them():
    found = config_differences(config(NOMINAL), config(REPORTED, memory={"graph_gib": 0.5}))
    assert found == ["hardware.memory_gb: 40.0 -> 39.5", "memory.graph_gib: 0.0 -> 0.5"]


def test_a_real_run_has_memory_of_its_own():
    real = {"executor": {"name": "model"}}
    assert config_differences(config(NOMINAL, **real), config(REPORTED, **real)) == []
