"""Serving on the real model, repeated, and the same runs simulated with its own measured times."""

import json

import numpy as np
import pytest

from harness.cost.shapes import ModelShape
from harness.executors.model.real_run import RealRun
from harness.measure.calibrate import measure
from harness.measure.steps import serving, sizing
from harness.measure.steps.serving import Service
from harness.measure.tables import DRAWN
from harness.results import ResultRow
from tests.measure.calibrate.test_command import SMALL
from tests.measure.jobs import make_job

DEFAULTS = {"contiguous_max", "contiguous_pow2", "contiguous_oracle", "paged", "virtual"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The record of a whole step of a tiny model, and where its files are."""
    made = make_job("llama-3-8b", tmp_path_factory.mktemp("a folder, x=1"), quick=True)
    made.limit_s = 600  # a machine that others use too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "QUICK", SMALL)
        patch.setattr("harness.measure.rounds.LEAST_SAMPLE_S", 1e-5)
        serving.llama_3_8b(made)
    return made


def test_every_default_allocator_serves_every_run_in_every_round(served):
    rows = served.results["rows"]
    assert {(r["run"], r["allocator"]) for r in rows} == {
        (run, name) for run in ("chat", "prefix") for name in DEFAULTS
    }
    for row in rows:
        assert (row["status"], row["rounds"]) == ("ok", serving.SIZED_ROUNDS)
        assert len(row["output_digests"]) == 1, "the same tokens each time"
        assert row["finished_requests"]["mean"] == serving.QUICK_REQUESTS
        for name in serving.COMPARED:
            assert row[name]["low"] <= row[name]["mean"] <= row[name]["high"]
    # float32: whatever the allocator
    for run in ("chat", "prefix"):
        assert len({row["output_digests"][0] for row in rows if row["run"] == run}) == 1


def test_the_same_runs_are_simulated_with_what_was_measured(served):
    rows = {(r["run"], r["allocator"]): r for r in served.results["rows"]}
    found = served.results["simulated"]
    assert {(r["run"], r["allocator"]) for r in found} == set(rows)
    for one in found:
        assert one["status"] == "ok", one
        real = rows[one["run"], one["allocator"]]
        # all requests are there at once, so plans do not depend on the clock
        assert one["steps"]["error"] == 0.0
        for name in serving.COMPARED:
            assert one[name]["measured"] == pytest.approx(real[name]["mean"])
            assert one[name]["simulated"] > 0
            ratio = one[name]["simulated"] / one[name]["measured"]
            assert one[name]["error"] == pytest.approx(ratio - 1)
    sizes = [abs(one["mean_batch"]["error"]) for one in found]
    assert served.results["errors"]["mean_batch"] == {
        "median": pytest.approx(np.median(sizes)), "largest": pytest.approx(max(sizes)),
    }  # fmt: skip
    file = served.out / served.results["calibration"]
    assert json.loads(file.read_text())["model"]["hidden"] == 128
    shown = " ".join("\n".join(DRAWN["llama-3-8b"](served.results)).split())
    assert "| chat | paged | ok | 2 |" in shown
    assert "Size of the error, median over rows (largest): output_tokens_per_s" in shown
    assert "The same runs simulated with `calibration-llama-3-8b.json`" in shown


@pytest.mark.parametrize(
    ("step", "heads"), [("opt-13b", (40, 40)), ("llama-3-8b", (32, 8))], ids=["opt", "llama"]
)
def test_on_a_gpu_the_shapes_are_those_of_the_models(step, heads):
    model = ModelShape(dtype_bytes=2)
    other = {"opt-13b": ("beam", "beam"), "llama-3-8b": ("prefix", "shared_prefix")}[step]
    for run, workload in (("chat", "sharegpt"), other):
        config = Service(step, "cuda", False).simulated(run, model).config
        assert (config.model.heads, config.model.kv_heads) == heads
        assert config.workload.name == workload
        assert config.kv_memory_gib == 12
        assert set(config.allocators) == DEFAULTS
    assert config.allocators["paged"]["prefix_index"] == ("hash" if step != "opt-13b" else "none")


def rows_of(*statuses):
    return [
        ResultRow("paged", status, "" if status == "ok" else "it broke",
                  metrics={"mean_batch": float(n)} if status == "ok" else {})
        for n, status in enumerate(statuses, 1)
    ]  # fmt: skip


def test_a_run_that_fails_once_is_no_run_that_is_ok():
    found = serving._row("chat", "paged", rows_of("ok", "error", "ok"))
    assert (found["status"], found["reason"], found["rounds"]) == ("error", "it broke", 3)
    assert found["mean_batch"]["mean"] == 2.0
    assert "ttft_p50_s" not in found


def test_an_error_fails_the_step_and_its_rows_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(RealRun, "__init__", lambda self, spec, *_: vars(self).update(spec=spec))
    monkeypatch.setattr(serving, "_calibrate", lambda *_: None)

    def breaks(prepared, name, consumers, real):
        return type("Served", (), {"row": rows_of("error" if name == "virtual" else "ok")[0]})

    monkeypatch.setattr(serving, "stream_variant", breaks)
    made = make_job("opt-13b", tmp_path, quick=True)
    with pytest.raises(RuntimeError, match="chat, virtual: it broke"):
        serving.opt_13b(made)
    assert len(made.results["rows"]) == 10
    assert "simulated" not in made.results


def test_a_calibration_that_fails_is_a_reason_and_no_failure(tmp_path, monkeypatch):
    def fails(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(serving, "measure", fails)
    made = make_job("opt-13b", tmp_path)
    assert serving._calibrate(made, None, "c.json") is None
    assert made.results["not_calibrated"] == "MemoryError: no room"
    made.results |= {"requests": 1, "model": "m", "dtype": "d", "rows": []}
    assert "Not calibrated: MemoryError: no room." in DRAWN["opt-13b"](made.results)


def test_later_rounds_are_left_out_where_they_would_take_the_time_of_the_calibration(
    tmp_path, monkeypatch
):
    made = make_job("opt-13b", tmp_path)
    left = iter([100.0, *[x for n in range(100) for x in (100.0 - 10 * n, 90.0 - 10 * n)]])
    monkeypatch.setattr(made, "left_s", lambda: next(left))
    monkeypatch.setattr(serving, "allocators", lambda prepared: ("paged",))
    served = type("Served", (), {"row": rows_of("ok")[0]})
    monkeypatch.setattr(serving, "stream_variant", lambda *_, **__: served)
    monkeypatch.setattr(serving, "SERVING", 0.15)  # 85 s are kept for what comes after
    taken = serving._rounds(made, None, {"chat": None})
    assert len(taken["chat", "paged"]) == 1
    assert made.results["left_out"] == ["chat, paged: round 2", "chat, paged: round 3"]


def test_requests_fit_the_time_that_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(sizing, "trial_step_s", lambda real: 0.01)
    monkeypatch.setattr(sizing, "simulated_steps", lambda prepared: {"a": 500, "b": 1500})
    made = make_job("opt-13b", tmp_path)
    monkeypatch.setattr(made, "left_s", lambda: 100.0)
    found = sizing.fitting_requests(made, None, {"chat": None}, 60.0, 2)
    # 0.01 s x 2,000 steps / 200 requests are 0.1 s a request; 0.6 x 30 s a round
    assert found["requests"] == 180
    few = sizing.fitting_requests(made, None, {"chat": None}, 0.1, 2)
    assert few["requests"] == sizing.FEWEST


def test_the_steps_of_a_run_are_counted_by_simulating_its_first_requests():
    prepared = Service("opt-13b", "cpu", True).simulated("chat", ModelShape(dtype_bytes=4))
    before = len(prepared.requests)
    steps = sizing.simulated_steps(prepared)
    assert set(steps) == DEFAULTS
    assert min(steps.values()) > 50
    assert len(prepared.requests) == before
