"""The runs in which simulated and measured steps are compared."""

import pytest
import torch

from allocators.virtual import PAGE_BYTES
from harness.cost.shapes import kv_geometry
from harness.measure.calibrate.accuracy import serving_runs
from harness.measure.options import load_model


@pytest.mark.parametrize(("device", "page"), [("cpu", "64KiB"), ("cuda", "2MiB")])
@pytest.mark.parametrize("seen", [False, True])
def test_page_groups_are_those_of_the_device_that_was_chosen(monkeypatch, device, page, seen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    run = next(run for run in serving_runs(device, 16, 2) if run.name == "virtual")
    shape = load_model("llama-tiny")
    room = kv_geometry(shape, 1, capacity_tokens=1 << 20, max_seqs=1, max_len=shape.max_context)
    assert run.allocator(room).page_bytes == PAGE_BYTES[page]
