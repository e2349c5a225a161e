"""In float32 every allocator emits the same tokens on every kind of device, also under pressure.

What each request emits alone, in the simplest memory, is the measure.  Each run leaves a record.
"""

import pytest

from tests.devices import each_place
from tests.executors.model.by_device import MODEL, SAMPLING, stage, variants
from tests.executors.model.layers_by_device import layered_runs, layered_stage
from tests.records import recorded


def runs(device, size):
    """Yield ways to sample, models and variants; layer groups after the first way to sample."""
    first, *others = SAMPLING
    layered = list(layered_runs(device, size))
    yield from ((first, MODEL, variant) for variant in variants(device, size))
    yield from (run for run in layered if run[0] == first)
    yield from ((mode, MODEL, variant) for mode in others for variant in variants(device, size))
    yield from (run for run in layered if run[0] != first)


@pytest.mark.parametrize(("device", "size", "mode", "model", "variant"), each_place(runs))
def test_it_emits_what_each_request_emits_alone(device, size, mode, model, variant):
    pressure = variant.preemption or "none"
    facts = {"model": model, "mode": mode, "allocator": str(variant), "pressure": pressure}
    with recorded("identity", **facts) as record:
        here = stage(device, size) if model == MODEL else layered_stage(device, size, model)
        alone = here.alone(mode)
        served = here.serve(variant, mode)
        record |= served.facts
        if served.facts["digest"] != alone.facts["digest"]:
            record |= {"status": "differs", **served.differing(alone)}
        assert bool(record["preemptions"]) == bool(variant.preemption)
        assert bool(record["swapped_slots"]) == (variant.preemption == "swap")
        if device == "cpu":  # a GPU's driver takes memory of its own when it first loads a kernel
            assert record["resident_difference_bytes"] == [0, 0]
    assert record["status"] == "ok", record
