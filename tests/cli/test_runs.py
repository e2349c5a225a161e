"""The command as a user types it: files, names, determinism, sweeps, interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from harness.results.metrics import METRICS
from tests.inprocess import run_harness

SMALL = ["workload.num_requests=40", "kv_tokens=4000"]
TIMELINE = [
    "allocator", "step", "time_s", "running", "waiting", "batched_tokens", "blocks_in_use",
    "preemptions", "hit_tokens", "token_bytes", "reserved_bytes", "internal_bytes",
    "external_bytes", "cached_bytes", "idle_bytes",
]  # fmt: skip
PROMISED = [
    *(f"{p}{c}_share" for p in ("", "saturated_")
      for c in ("token", "reserved", "internal", "external", "cached", "idle")),
    "sharing_saved", "mean_batch", "peak_batch", "saturated_mean_batch", "requests_per_s",
    "output_tokens_per_s", "total_tokens_per_s",
    *(f"{m}_{q}_s" for m in ("ttft", "tpot", "e2e") for q in ("mean", "p50", "p90", "p99")),
    "normalized_latency_mean_s", "preemptions", "copied_bytes", "metadata_bytes_peak",
    "allocator_us_per_step", "steps", "makespan_s",
]  # fmt: skip


def harness(*arguments, cwd, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, **kwargs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one command in different directories."""
    cwd = tmp_path_factory.mktemp("runs")
    for name, run in (("b", run_harness), ("a", harness)):  # two processes: hashes differ too
        done = run("+workload=beam", *SMALL, f"hydra.run.dir={cwd}/{name}", cwd=cwd)
        assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_run_leaves_what_is_promised(runs):
    cwd, done = runs
    summary = json.loads((cwd / "a" / "summary.json").read_text())
    assert set(summary) == {"schema_version", "config", "environment", "rows"}
    default = ["contiguous_max", "contiguous_pow2", "contiguous_oracle", "paged", "virtual"]
    assert [row["allocator"] for row in summary["rows"]] == default
    for row in summary["rows"]:
        fields = {"allocator", "status", "reason", "metrics", "output_digest", "loop", "totals"}
        assert set(row) == fields
        assert row["output_digest"] is None
        if row["status"] == "ok":
            assert set(PROMISED) <= set(row["metrics"]) == {m.name for m in METRICS}
    timeline = pd.read_parquet(cwd / "a" / "timeline.parquet")
    assert set(TIMELINE) <= set(timeline.columns)
    capacity = timeline[[c for c in TIMELINE if c.endswith("_bytes")]].sum(axis=1)
    assert capacity.nunique() == 1
    requests = pd.read_parquet(cwd / "a" / "requests.parquet")
    finished = [row["allocator"] for row in summary["rows"] if row["status"] == "ok"]
    assert (requests.groupby("allocator", observed=True).size() == 40).all()
    assert set(requests["allocator"]) == set(finished)
    assert {p.name for p in (cwd / "a" / "figures").iterdir()} == {
        "waste.png", "memory_over_time.png", "time.png", "throughput.png", "latency.png",
    }  # fmt: skip
    assert "paged" in done.stdout
    assert "*" in done.stdout
    assert "\x1b" not in done.stdout


def test_one_seed_gives_identical_files(runs):
    cwd, _ = runs
    measured = [m.name for m in METRICS if not m.deterministic]
    summaries = []
    for name in ("a", "b"):
        summary = json.loads((cwd / name / "summary.json").read_text())
        for row in summary["rows"]:
            for metric in measured:
                row["metrics"].pop(metric, None)
        summaries.append(summary)
    assert summaries[0] == summaries[1]
    for path in sorted((cwd / "a").rglob("*.p*")):
        if path.is_file() and ".hydra" not in path.parts:
            other = cwd / "b" / path.relative_to(cwd / "a")
            assert path.read_bytes() == other.read_bytes(), path.name


def test_a_sweep_ends_in_one_table(tmp_path):
    done = run_harness(
        "-m", "+workload=sharegpt", "workload.num_requests=20", "allocator=[paged]",
        "allocators.paged.block_size=8,32", f"hydra.sweep.dir={tmp_path}/s", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, *rest = done.stdout.splitlines()
    assert first.startswith("[1/2] block_size=8: paged ")
    assert second.startswith("[2/2] block_size=32: paged ")
    assert done.stdout.count("best of its column") == 1
    assert done.stdout.count("Results in") == 1
    assert max(map(len, rest[:-1])) <= 80
    table = done.stdout[done.stdout.rindex("block_size") :]
    assert "8 " in table
    assert "32 " in table
    rows = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert len(rows["rows"] if isinstance(rows, dict) else rows) == 2


#: an allocator that waits to be interrupted where its blocks are of 16 tokens
WAITING = """
import time
from allocators.paged import Paged

class Waiting(Paged):
    def admit(self, *given, **more):
        if self.geometry.page_tokens == 16:
            time.sleep(600)
        return super().admit(*given, **more)
"""


def interrupted(*arguments, once, cwd):
    """Interrupt a command once a file exists; return its status."""
    (cwd / "waiting.py").write_text(WAITING)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "harness", "+workload=sharegpt", "workload.num_requests=20",
            "allocator=[paged]", *arguments,
        ],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(3000):
        if once.exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode


def test_ctrl_c_keeps_the_finished_variants(tmp_path):
    summary = tmp_path / "r" / "summary.json"
    options = ("+allocators.waiting={_target_: waiting.Waiting}", f"hydra.run.dir={tmp_path}/r")
    assert interrupted(*options, once=summary, cwd=tmp_path) == 130
    rows = json.loads(summary.read_text())["rows"]
    assert [row["status"] for row in rows] == ["ok", "error"]
    assert "interrupted" in rows[1]["reason"]
    assert set(pd.read_parquet(tmp_path / "r" / "timeline.parquet")["allocator"]) == {"paged"}


def test_ctrl_c_in_a_sweep_keeps_a_table_of_the_finished_jobs(tmp_path):
    second = tmp_path / "s" / "1" / "summary.json"
    sizes = ",".join(f"{{_target_: waiting.Waiting, block_size: {size}}}" for size in (8, 16))
    options = ("-m", f"+allocators.waiting={sizes}", "report=none")
    options += (f"hydra.sweep.dir={tmp_path}/s",)
    assert interrupted(*options, once=second, cwd=tmp_path) == 130
    table = pd.read_csv(tmp_path / "s" / "sweep.csv")
    assert table["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert "interrupted" in table["reason"].iloc[-1]


def test_a_variant_that_cannot_run_is_a_row_with_a_reason(tmp_path):
    done = run_harness(
        "+workload=uniform", "workload.num_requests=5", "kv_tokens=1900", "engine.max_len=2048",
        "workload.output.high=200", "workload.prompt.high=200",
        "allocator=[contiguous_max,paged]", f"hydra.run.dir={tmp_path}/r", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r" / "summary.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["oom", "ok"]
    assert "2048" in rows[0]["reason"]
    assert rows[0]["metrics"] == {}


def test_no_workload_is_status_2(tmp_path):
    done = run_harness(cwd=tmp_path)
    assert done.returncode == 2
    assert "choose a workload" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_default_run_directory_is_the_only_one_made(tmp_path):
    done = run_harness(
        "+workload=uniform", "workload.num_requests=3", "allocator=[paged]", "report=none",
        "hardware.count=3", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "does not divide the 40 heads" in done.stderr
    (day,) = (tmp_path / "results" / "runs").iterdir()
    (run,) = day.iterdir()
    assert (run / "summary.json").exists()


def test_a_crash_of_an_allocator_is_a_row_that_says_where_and_status_1(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from allocators.paged import Paged\n\n\nclass Broken(Paged):\n"
        "    def release(self, seqs):\n        raise ValueError('boom')\n"
    )
    done = harness(
        "+workload=uniform", "workload.num_requests=3", "allocator=[paged]", "report=none",
        "+allocators.mine={_target_: broken.Broken}", f"hydra.run.dir={tmp_path}/r",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ValueError: boom (broken.py:6)" in done.stdout
    assert "Traceback" not in done.stderr
    rows = json.loads((tmp_path / "r" / "summary.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["ok", "error"]


def test_host_memory_beyond_all_memory_is_a_row_and_not_a_traceback(tmp_path):
    done = run_harness(
        "+workload=uniform", "workload.num_requests=6", "allocator=[paged]",
        "engine.preemption=swap", "engine.host_gib=1000000000",
        f"hydra.run.dir={tmp_path}/run", cwd=tmp_path,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    (row,) = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert (row["status"], row["metrics"]) == ("oom", {})
    assert "Unable to allocate" in row["reason"]
