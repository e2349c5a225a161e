"""`executor=model` as a user runs it: real tokens, and one clear line for what cannot run."""

import json

import pytest

from tests.inprocess import run_harness

SMALL = (
    "executor=model", "model=llama-tiny", "executor.device=cpu", "executor.max_requests=3",
    "workload.num_requests=5", "report=none",
)  # fmt: skip


def test_a_real_run_reports_measured_times_and_equal_outputs(tmp_path):
    lengths = ("workload.output.mean=12", "workload.output.high=24")
    run = f"hydra.run.dir={tmp_path}/a"
    done = run_harness("+workload=beam", *SMALL[:-1], *lengths, run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "serves the first 3 of 5 requests" in done.stderr
    assert "virtual: a page-group holds 4096 tokens, and the pool 4 of them" in done.stderr
    assert "outputs: the same tokens from all 5 allocators (sha256:" in done.stdout
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert {row["status"] for row in summary["rows"]} == {"ok"}
    assert len({row["output_digest"] for row in summary["rows"]}) == 1
    for row in summary["rows"]:
        assert row["metrics"]["output_tokens_per_s"] > 0
        assert row["metrics"]["resident_peak_bytes"] > 0
    executor = summary["config"]["executor"]
    assert (executor["device"], executor["dtype"], executor["backend"]) == ("cpu", "float32", "cpu")
    assert summary["config"]["model"]["dtype_bytes"] == 4
    assert "measured (cpu, float32, cpu attention)" in (tmp_path / "a" / "report.md").read_text()


def test_options_of_a_real_run_are_refused_without_one(tmp_path):
    from harness.cli.checks import check
    from harness.cli.points import Points

    problem, _ = check(
        ["+workload=uniform", "executor.max_requests=2", f"hydra.run.dir={tmp_path}/a"], Points()
    )
    assert problem == "executor.max_requests is an option of executor=model"


def test_what_cannot_run_is_a_row_with_a_reason(tmp_path):
    options = (f"hydra.run.dir={tmp_path}/a", "executor.backend=sdpa")
    which = "allocator=[paged,contiguous_max]"
    done = run_harness("+workload=uniform", *SMALL, *options, which, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "a" / "summary.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["unsupported", "ok"]
    assert "not pages" in rows[0]["reason"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("executor.device=tpu", "executor.device must be one of auto, cpu, cuda, got 'tpu'"),
        ("executor.dtype=int8", "executor.dtype must be one of"),
        ("executor.weights=/nowhere", "executor.weights=/nowhere is no directory"),
        ("executor.pool_mib=null", "executor.pool_mib=null is for a GPU"),
        ("executor.max_requests=0", "executor.max_requests must be at least 1, got 0"),
        ("hardware.count=2", "executor=model runs on one device"),
        ("engine.max_len=4000", "beyond the 2048 positions of Llama-tiny"),
        ("sampling.top_p=0", "sampling.top_p must be a positive number"),
        ("sampling.temperature=0.5", "are options of sampling.mode=parallel"),
        ("executor.weights=/etc/hosts", "is no directory; expected a local one"),
        ("executor.pool_mib=90000000", "cpu has"),
        ("executor.pool_mib=0.0001", "raise executor.pool_mib"),
        ("model=qwen3-30b-a3b", "a mixture of 128 experts has no decoder"),
        ("model=opt-175b", "GiB for its weights, cpu has"),
    ],
)
def test_bad_options_are_one_line(tmp_path, override, message):
    """In this process, as the command checks them: starting torch takes seconds."""
    from harness.cli.checks import check
    from harness.cli.points import Points

    run = f"hydra.run.dir={tmp_path}/a"
    problem, _ = check(["+workload=uniform", *SMALL, run, override], Points())
    assert problem is not None
    assert message in problem
    assert "\n" not in problem
    assert not (tmp_path / "a").exists()
