"""What goes wrong with real memory ends as a row of the comparison, and leaves nothing behind."""

import dataclasses

import pytest

from harness.comparison.config import Config
from harness.comparison.pool import make_geometry
from harness.comparison.prepared import Prepared
from harness.comparison.variant import run_variant
from harness.engine.config import EngineSpec, SamplingSpec
from harness.executors.model import real_run
from harness.executors.model.real_run import RealRun
from harness.executors.model.settings import settle
from harness.executors.spec import ExecutorSpec
from kernels.memory import BackingError, OutOfMemory, backing_for
from tests.executors.model.serving_cases import LLAMA
from workloads.requests import RequestTable

VIRTUAL = {"_target_": "allocators.virtual.Virtual", "page_size": "64KiB", "layout": "sliced"}


@pytest.fixture
def run(monkeypatch):
    """Return what runs `virtual` for real, with `spoil` done to its memory."""
    import numpy as np

    config = Config(
        allocators={"virtual": VIRTUAL},
        model=dataclasses.replace(LLAMA),
        sampling=SamplingSpec("beam", width=4),
        engine=EngineSpec(max_len=64, max_num_seqs=16),
        executor=ExecutorSpec("model", device="cpu"),
        kv_tokens=400,
    )
    config.model = settle(config.executor, config.model)
    table = RequestTable(np.zeros(4), np.array([9, 30, 3, 17]), np.array([12, 8, 20, 5]))
    prepared = Prepared(config, {}, make_geometry(config), table, [])
    held = []

    def go(spoil):
        def spoilt(*args, **kwargs):
            held.append(backing_for(*args, **kwargs))
            spoil(held[-1])
            return held[-1]

        monkeypatch.setattr(real_run, "backing_for", spoilt)
        running = RealRun(config.executor, config.model, 0)
        row, log = run_variant(prepared, "virtual", real=running)
        assert held[-1].closed
        assert held[-1].resident_bytes() == 0
        return row, log

    return go


def test_a_run_is_a_row_with_a_digest(run):
    row, log = run(lambda memory: None)
    assert row.ok, row.reason
    assert row.output_digest.startswith("sha256:")
    assert row.metrics["resident_peak_bytes"] % (64 << 10) == 0
    assert log.steps


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfMemory("no page of 64 KiB is left"), "oom"),
        (BackingError("cuMemMap failed: CUDA_ERROR_UNKNOWN"), "error"),
        (RuntimeError("CUDA error: the device is lost"), "error"),
    ],
)
@pytest.mark.parametrize("after", [0, 5])
def test_a_failing_call_is_a_row_with_its_reason(run, error, status, after):
    def spoil(memory):
        calls = iter(range(10**6))
        real = memory.driver.map

        def fail(*args):
            if next(calls) >= after:
                raise error
            return real(*args)

        memory.driver.map = fail

    row, log = run(spoil)
    assert (row.status, log) == (status, None)
    assert str(error) in row.reason
    assert row.output_digest is None
