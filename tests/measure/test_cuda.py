"""What runs on CUDA only, against a driver and events that are made up."""

import sys
from types import SimpleNamespace

import pytest
import torch

from harness.measure.steps import environment, vmm
from harness.measure.tables import DRAWN
from harness.measure.timing import QUEUE_CYCLES, Timer, spread
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
    one = ["flush 2048", "sleep", "record", "work", "record"]
    expected = [*["work"] * 3, "synchronize", *one * 4]
    assert events.calls[: len(expected)] == expected


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
