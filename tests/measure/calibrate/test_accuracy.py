"""The runs in which simulated and measured steps are compared."""

from types import SimpleNamespace

import pytest
import torch

from allocators.virtual import PAGE_BYTES
from harness.cost.kv import kv_geometry
from harness.measure.calibrate import accuracy
from harness.measure.calibrate.accuracy import measure_accuracy, serving_runs
from harness.measure.options import load_model
from harness.measure.serving import ServedStep
from kernels.memory import OutOfMemory


@pytest.mark.parametrize(("device", "page"), [("cpu", "64KiB"), ("cuda", "2MiB")])
@pytest.mark.parametrize("seen", [False, True])
def test_page_groups_are_those_of_the_device_that_was_chosen(monkeypatch, device, page, seen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    run = next(run for run in serving_runs(device, 16, 2) if run.name == "virtual")
    shape = load_model("llama-tiny")
    room = kv_geometry(shape, 1, capacity_tokens=1 << 20, max_seqs=1, max_len=shape.max_context)
    assert run.allocator(room).page_bytes == PAGE_BYTES[page]


def test_a_run_without_room_is_named_and_the_others_are_compared(monkeypatch):
    def serve(run, real, cost):
        if run.name == "virtual":
            raise OutOfMemory("1 byte of KV")
        return [ServedStep("decode", (), 1, measured_s=2.0, simulated_s=1.0)]

    monkeypatch.setattr(accuracy, "serve", serve)
    monkeypatch.setattr(accuracy, "_machine", lambda real, calibration: 1.0)
    real = SimpleNamespace(spec=SimpleNamespace(device="cpu"))
    cost = SimpleNamespace(calibration=SimpleNamespace(page_tokens=16, statistic="median"))
    found = measure_accuracy(real, cost, runs=2, requests=2)
    assert found.skipped == {"virtual": "1 byte of KV"}
    assert "virtual" not in [errors.steps for errors in found.by_run]
    assert found.by_kind[-1].count == 6
