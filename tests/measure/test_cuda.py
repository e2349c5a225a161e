"""What runs on CUDA only, against a driver and events that are made up."""

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.measure.steps import environment, vmm
from harness.measure.tables import DRAWN
from harness.measure.timing import (
    QUEUE_CYCLES,
    Timer,
    mean_interval,
    median_interval,
    read_bytes_s,
    spread,
)
from tests.kernels.memory.fake_cuda import FakeCuda
from tests.measure.jobs import make_job

CUDA = torch.device("cuda", 0)
MIB = 2**20


def take(tmp_path, fake, samples=200):
    made, fences = make_job("vmm", tmp_path, "cuda"), []
    vmm.time_calls(made, fake, lambda: fences.append(len(fake.mapped)), samples)
    return made, fences


def test_every_call_is_timed_for_every_page_size(tmp_path):
    fake = FakeCuda(total=1 << 40)
    made, fences = take(tmp_path, fake)
    rows = made.results["rows"]
    sizes = {2 * MIB * multiple for multiple in vmm.MULTIPLES}
    assert {(r["page_bytes"], r["call"]) for r in rows} == {
        (size, call) for size in sizes for call in vmm.CALLS
    }
    assert all(r["samples"] >= 200 for r in rows if not r["call"].endswith("_all"))
    assert all(0 <= r["median_s"] <= r["p99_s"] for r in rows)
    assert made.results["granularity_bytes"]["minimum"] == 2 * MIB
    assert fake.clean()
    assert all(fences), "the device is waited for while pages are still mapped"


def test_the_calls_come_in_the_order_that_the_driver_wants(tmp_path):
    fake = FakeCuda(total=1 << 40)
    take(tmp_path, fake, samples=2)
    first = fake.names().index("cuMemAddressReserve")
    assert fake.names()[first : first + 15] == [
        "cuMemAddressReserve", "cuMemCreate", "cuMemCreate",
        "cuMemMap", "cuMemSetAccess", "cuMemMap", "cuMemSetAccess",
        "cuMemUnmap", "cuMemUnmap", "cuMemRelease", "cuMemRelease", "cuMemAddressFree",
        "cuMemAddressReserve", "cuMemAddressReserve", "cuMemAddressFree",
    ]  # fmt: skip


def test_a_size_that_the_driver_refuses_is_named_with_its_answer(tmp_path):
    made, _ = take(tmp_path, FakeCuda(total=1 << 40), samples=2)
    refused = {r["page_bytes"]: r["reason"] for r in made.results["refused"]}
    assert set(refused) == {64 * 1024, 128 * 1024, 256 * 1024}
    assert set(refused.values()) == {"cuMemCreate: CUDA_ERROR_INVALID_VALUE"}
    shown = " ".join("\n".join(DRAWN["vmm"](made.results)).split())
    assert "| set_access | 2 | 2 |" in shown
    assert "CUDA_ERROR_INVALID_VALUE" in shown


@pytest.mark.parametrize(
    "name", ["cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemAddressReserve"]
)
def test_a_call_that_fails_leaves_nothing_behind(tmp_path, name):
    fake = FakeCuda(total=1 << 40)
    fake.fail[name] = 9
    made, _ = take(tmp_path, fake, samples=4)
    assert any("OUT_OF_MEMORY" in r["reason"] for r in made.results["refused"])
    assert fake.clean()


def test_a_page_that_is_not_given_back_is_the_reason_and_the_next_size_is_tried(tmp_path):
    fake = FakeCuda(total=1 << 40)
    fake.fail["cuMemUnmap"] = 1
    made, _ = take(tmp_path, fake, samples=2)
    reasons = {r["page_bytes"]: r["reason"] for r in made.results["refused"]}
    sizes = [2 * MIB * multiple for multiple in vmm.MULTIPLES]
    assert {reasons[size] for size in sizes} == {"cuMemUnmap: CUDA_ERROR_OUT_OF_MEMORY"}


class FakeEvents:
    """What the timer asks of `torch.cuda`; a call takes as many milliseconds as it says."""

    def __init__(self):
        self.calls, self.now_ms = [], 0.0

    def get_device_properties(self, device):
        return SimpleNamespace(L2_cache_size=1024)

    def synchronize(self, device):
        self.calls.append("synchronize")

    def _sleep(self, cycles):
        assert cycles == QUEUE_CYCLES
        self.calls.append("sleep")

    def Event(self, enable_timing):
        assert enable_timing
        made = SimpleNamespace(at=None)

        def record():
            self.calls.append("record")
            made.at = self.now_ms

        made.record = record
        made.elapsed_time = lambda other: other.at - made.at
        return made


class OnCpu(Timer):
    @property
    def _flushed(self):
        # Nothing but reading is there: a dirty cache is written back in what is timed.
        return SimpleNamespace(amax=lambda: self._cuda.calls.append(f"flush {self.flush_bytes}"))


def test_a_sample_is_flushed_queued_and_between_two_events():
    events = FakeEvents()
    timer = OnCpu(CUDA, events)

    def work():
        events.calls.append("work")
        events.now_ms += 2.0

    found = timer.measure(work, 4)
    assert found["median_s"] == found["p99_s"] == pytest.approx(2e-3)
    assert found["samples"] == 4
    one = ["flush 2048", "sleep", "record", "work", "record", "synchronize"]
    assert events.calls == [*["work"] * 3, "synchronize", *one * 4]


def test_all_take_turns_and_every_time_is_that_of_its_own_work():
    events, order = FakeEvents(), []
    timer = OnCpu(CUDA, events)

    def work(number):
        order.append(number)
        events.now_ms += 1.0 + number

    taken = timer.rounds([partial(work, n) for n in range(4)], 6, np.random.default_rng(0))
    assert taken == pytest.approx(np.tile([[1e-3], [2e-3], [3e-3], [4e-3]], 6))
    rounds = [tuple(order[12 + 4 * n : 16 + 4 * n]) for n in range(6)]
    assert all(sorted(each) == [0, 1, 2, 3] for each in rounds)
    assert len(set(rounds)) > 1, "the order is drawn anew each round"


def test_an_interval_holds_the_median_and_narrows_with_more_rounds():
    assert median_interval(np.full(7, 1.25)) == (1.25, 1.25, 1.25)
    samples = np.random.default_rng(1).normal(1.1, 0.1, 400)
    few, many = median_interval(samples[:10]), median_interval(samples)
    assert all(low <= middle <= high for middle, low, high in (few, many))
    assert many[2] - many[1] < (few[2] - few[1]) / 2
    assert many[1] < 1.1 < many[2]
    assert median_interval(samples) == many


def test_the_interval_of_a_mean_is_that_of_student():
    assert mean_interval([2.0]) == (2.0, None, None)
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, high - mean) == (2.0, pytest.approx(4.303 / 3**0.5))
    assert low == pytest.approx(4.0 - high)


def test_the_ceiling_is_what_readers_read():
    found = read_bytes_s(Timer(torch.device("cpu")), 1 << 16, 2)
    assert len(found) > 1
    assert all(rate > 0 for rate in found.values())


def test_many_pages_are_mapped_in_three_ways(tmp_path):
    fake = FakeCuda(total=1 << 40)
    made, fences = take(tmp_path, fake, samples=5)
    rows = made.results["spans"]
    assert [(r["pages"], r["way"]) for r in rows] == [(n, w) for n in vmm.SPANS for w in vmm.WAYS]
    assert all(r["samples"] == 5 for r in rows)
    assert all(r["ratio_low"] <= r["ratio"] <= r["ratio_high"] for r in rows)
    assert all(r["ratio"] == 1.0 for r in rows if r["way"] == vmm.WAYS[0])
    sizes = {"cuMemMap": [], "cuMemSetAccess": [], "cuMemUnmap": []}
    for name, _, size, *_ in (call for call in fake.calls if call[0] in sizes):
        sizes[name].append(size)
    whole = 64 * 2 * MIB
    # of 5 samples: access to 64 pages at once, and as one piece; the latter alone is one map.  And
    # there are single pages of that size
    assert sizes["cuMemSetAccess"].count(whole) == sizes["cuMemUnmap"].count(whole) == 5 + 10
    assert sizes["cuMemMap"].count(whole) == 5 + 5
    assert fake.clean()
    assert fences
    shown = " ".join("\n".join(DRAWN["vmm"](made.results)).split())
    assert "access and unmap in one call" in shown


def test_quantiles_are_samples():
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == {
        "samples": 5, "median_s": 3.0, "p10_s": 1.0, "p90_s": 5.0, "p99_s": 5.0,
    }  # fmt: skip
    assert spread([float(n) for n in range(1, 201)])["p99_s"] == 198.0
    assert spread([1.0, 2.0])["median_s"] == 1.5


def test_the_environment_of_a_gpu(monkeypatch):
    properties = SimpleNamespace(
        name="A GPU", major=9, minor=0, total_memory=1 << 40, multi_processor_count=7
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(environment, "describe_environment", lambda: {"git": None})
    found = environment.describe(CUDA, "abc")
    assert found["git"] == {"commit": "abc", "dirty": None}
    assert found["accelerator"]["name"] == "A GPU"
    assert found["accelerator"]["capability"] == "9.0"
    assert "driver" in found["accelerator"]


class FakeNvml:
    """What is asked of `pynvml`."""

    class NVMLError(Exception):
        pass

    def __init__(self, there):
        self.there, self.open = there, 0

    def nvmlInit(self):
        if not self.there:
            raise self.NVMLError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):
        assert self.open
        return "580.1"


@pytest.mark.parametrize(("there", "version"), [(True, "580.1"), (False, None)])
def test_the_driver_says_its_version_if_there_is_one(monkeypatch, there, version):
    nvml = FakeNvml(there)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert environment.driver_version() == version
    assert not nvml.open


def test_without_nvidia_ml_py_the_driver_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert environment.driver_version() is None
