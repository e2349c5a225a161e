"""Decode beside a thread that maps: the thread really maps, and what it meets is not lost."""

import time
from types import SimpleNamespace

import pytest
import torch

from harness.measure.steps import mapping
from harness.measure.tables import DRAWN
from tests.kernels.memory.fake_cuda import FakeCuda
from tests.measure.cuda_backing import cuda_backing_for
from tests.measure.jobs import make_job


def until(reached):
    """Wait for a thread, but not for ever."""
    for _ in range(3000):
        if reached():
            return
        time.sleep(0.01)
    raise AssertionError("the thread does nothing")


def test_pages_are_mapped_while_decode_runs_and_given_back(tmp_path, monkeypatch):
    made = []
    memory = mapping._memory
    monkeypatch.setattr(mapping, "_memory", lambda *a: made.append(memory(*a)) or made[-1])
    found = mapping.while_mapping(make_job("vmm", tmp_path, quick=True))
    assert found["samples"] == mapping.QUICK_ROUNDS
    assert found["pages_mapped"] >= 2 * mapping.GROUPS * mapping.QUICK_ROUNDS
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert min(found["alone_s"], found["mapping_s"], found["page_s"]) > 0
    assert made[0].closed
    shown = " ".join("\n".join(DRAWN["vmm"]({"while_mapping": found})).split())
    assert "| 4 x 64 |" in shown


def test_all_is_mapped_and_unmapped_in_turn(monkeypatch):
    memory = mapping._memory(torch.device("cpu"), torch.float32)
    calls, note = [], memory.note

    def noted(grant):
        calls.append((len(grant.maps), len(grant.unmaps)))
        return note(grant)

    monkeypatch.setattr(memory, "note", noted)
    with memory, mapping._mapping(memory, True) as count:
        until(lambda: len(calls) >= 6)
    assert count[0] >= 3
    assert calls == [(mapping.GROUPS, 0), (0, mapping.GROUPS)] * count[0]


def test_without_the_thread_nothing_is_mapped():
    with mapping._mapping(SimpleNamespace(), False) as count:
        pass
    assert count == [0]


def test_an_error_of_the_thread_is_raised():
    def fails(grant):
        raise MemoryError("no room")

    memory = SimpleNamespace(map_beside=fails, wait=lambda: None)
    with pytest.raises(MemoryError, match="no room"), mapping._mapping(memory, True):
        pass


def test_on_cuda_the_thread_has_the_context_and_makes_no_memory(monkeypatch):
    fake = FakeCuda(granularity=64 << 10)
    monkeypatch.setattr(mapping, "backing_for", cuda_backing_for(fake))
    with mapping._memory(torch.device("cpu"), torch.float32) as memory:
        assert fake.names().count("cuMemCreate") == 2 * mapping.GROUPS
        fake.calls.clear()
        with mapping._mapping(memory, True) as count:
            until(lambda: fake.names().count("cuMemUnmap") >= 4 * mapping.GROUPS)
        assert fake.names()[0] == "cuCtxSetCurrent"
        pages = 2 * mapping.GROUPS * count[0]
        names = fake.names()
        assert [names.count(name) for name in ("cuMemMap", "cuMemSetAccess", "cuMemUnmap")] == (
            [pages] * 3
        )
        assert set(names) == {"cuCtxSetCurrent", "cuMemMap", "cuMemSetAccess", "cuMemUnmap"}
        assert not fake.mapped
    assert fake.clean()
