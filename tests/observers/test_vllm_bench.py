"""A run in the fields of vLLM's benchmark, and back again."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.comparison import compose, prepare, run_comparison
from harness.errors import ConfigError
from harness.replay.run import replayed
from harness.replay.simulate import compose_replay, prepare_replay
from tests.replay.files import FILES, measured

SERVER = ("model=yi-6b", "hardware=a100-80gb", "engine=chunked", "allocator=[paged]")
WORKLOADS = {
    "rate": ("+workload=sharegpt", "workload.num_requests=60", "workload.rate=8"),
    "closed": ("+workload=sharegpt", "workload.num_requests=40", "workload.rate=null",
               "workload.concurrency=6"),
    "at_once": ("+workload=sharegpt", "workload.num_requests=40", "workload.rate=inf"),
}  # fmt: skip


def exported(tmp_path, *options):
    composed = compose(*options, "harness.export=vllm", "report=none")
    comparison = run_comparison(prepare(composed), tmp_path / "run")
    assert comparison.unsaved is None
    return comparison, tmp_path / "run" / "vllm_bench-paged.json"


def test_the_fields_are_those_of_the_benchmark(tmp_path):
    _, path = exported(tmp_path, *WORKLOADS["rate"], *SERVER)
    ours = json.loads(path.read_text())
    theirs = json.loads((FILES / "vllm_bench_serve.json").read_text())
    # What the client waits before it sends, and speech: neither is in a simulation.
    assert theirs.keys() - ours.keys() == {"queue_times", "rtfx"}
    assert {key for key in ours.keys() - theirs.keys() if "e2el" not in key} == set()
    said = [key for key in theirs if key in ours and theirs[key] is not None]
    assert {k: type(ours[k]) for k in said} == {k: type(theirs[k]) for k in said}


def test_its_numbers_are_those_of_the_run(tmp_path):
    comparison, path = exported(tmp_path, *WORKLOADS["rate"], *SERVER)
    ours = json.loads(path.read_text())
    (row,), metrics = comparison.rows, comparison.rows[0].metrics
    assert row.ok
    for name, metric in (
        ("mean_ttft_ms", "ttft_mean_s"),
        ("p99_ttft_ms", "ttft_p99_s"),
        ("mean_tpot_ms", "tpot_mean_s"),
        ("median_tpot_ms", "tpot_p50_s"),
        ("mean_e2el_ms", "e2e_mean_s"),
    ):
        assert ours[name] == pytest.approx(1e3 * metrics[metric])
    assert ours["completed"] == metrics["finished_requests"] == 60
    assert ours["output_throughput"] == pytest.approx(metrics["output_tokens_per_s"])
    requests = pd.read_parquet(tmp_path / "run" / "requests.parquet")
    assert ours["start_times"] == requests.arrival_s.tolist()
    assert [len(gaps) + 1 for gaps in ours["itls"]] == ours["output_lens"]
    np.testing.assert_allclose(
        np.add(ours["ttfts"], [sum(gaps) for gaps in ours["itls"]]), ours["latencies"]
    )
    assert (ours["request_rate"], ours["max_concurrency"]) == (8.0, None)
    assert ours["model_id"] == "Yi-6B"
    seconds = np.concatenate(
        [
            start + ttft + np.concatenate([[0.0], np.cumsum(gaps)])
            for start, ttft, gaps in zip(
                ours["start_times"], ours["ttfts"], ours["itls"], strict=True
            )
        ]
    )
    assert ours["max_output_tokens_per_s"] == pytest.approx(
        np.bincount(seconds.astype(int)).max(), abs=2
    )


@pytest.mark.parametrize("software", ["", "software.request_us=3000", "software.response_us=900"])
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_a_replay_of_our_own_export_has_no_error(workload, software, tmp_path):
    given = [*SERVER, *([software] if software else [])]
    _, path = exported(tmp_path, *workload, *given)
    run = measured(path)
    found = replayed(str(path), run, prepare_replay(str(path), run, compose_replay(given)))
    errors = {(each.quantity, each.statistic): each.error for each in found.compared}
    assert len(errors) == 19
    assert max(map(abs, errors.values())) < 1e-9
    assert max(found.request_errors.values()) < 1e-9


def test_a_preemption_is_a_gap(tmp_path):
    _, path = exported(tmp_path, *WORKLOADS["at_once"], *SERVER, "kv_tokens=3000")
    requests = pd.read_parquet(tmp_path / "run" / "requests.parquet")
    ours = json.loads(path.read_text())
    assert requests.preemptions.sum() > 0
    np.testing.assert_allclose(
        np.add(ours["ttfts"], [sum(gaps) for gaps in ours["itls"]]), ours["latencies"]
    )


def test_another_export_is_refused():
    with pytest.raises(ConfigError, match=r"harness.export must be one of none, vllm"):
        prepare(compose(*WORKLOADS["rate"], *SERVER, "harness.export=csv"))
