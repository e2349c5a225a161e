"""A run from before gaps between tokens were kept is shown, compared and loaded as it is."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.compare.judge import compare_cases
from harness.compare.load import load_cases
from harness.comparison import compose, prepare, run_comparison
from harness.report import write_report
from harness.results.frame import load
from harness.results.metrics import METRICS
from harness.results.reader import read_logs, read_whole_logs

YOUNG = [m.name for m in METRICS if m.name.startswith("itl_") or "good" in m.name]


@pytest.fixture
def runs(tmp_path):
    """Return a run, and the same as it was written before."""
    given = ("+workload=uniform", "workload.num_requests=30", "allocator=[paged]", "report=none")
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        comparison = run_comparison(prepare(compose(*given)), folder)
        assert comparison.served
    summary = json.loads((old / "summary.json").read_text())
    del summary["config"]["slo"]
    for name in YOUNG:
        del summary["rows"][0]["metrics"][name]
    (old / "summary.json").write_text(json.dumps(summary))
    table = pq.read_table(old / "requests.parquet").drop_columns(["itl_max_s"])
    pq.write_table(table, old / "requests.parquet")
    return new, old


def test_an_older_run_has_a_report_and_a_log(runs):
    new, old = runs
    pages = {}
    for folder in runs:
        write_report([folder], folder)
        pages[folder] = (folder / "report.html").read_text()
        assert "ITL p99" in (folder / "report.md").read_text() or folder == old
    assert "Longest gap" in pages[new]
    assert "Longest gap" not in pages[old]
    (totals,) = (row["totals"] for row in json.loads((old / "summary.json").read_text())["rows"])
    (log,) = read_whole_logs(old, {"paged": totals})
    assert np.isnan(log.requests["itl_max_s"]).all()
    logs, problems = read_logs(old, {"paged": totals})
    assert not problems
    assert "itl_max_s" not in logs["paged"].requests


def test_an_older_run_is_a_baseline_of_a_newer_one(runs):
    new, old = runs
    judgement = compare_cases(load_cases([old]), load_cases([new]), measured=False)
    assert not judgement.problems
    assert {finding.verdict for finding in judgement.findings} == {"same"}
    frame = load(str(new.parent / "*"))
    assert frame["itl_p99_s"].notna().tolist() == [True, False]


def test_a_request_of_one_token_has_no_longest_gap_and_is_read_back(tmp_path):
    given = ("+workload=uniform", "workload.num_requests=4", "allocator=[paged]", "report=none",
             "workload.output={kind:fixed,value:1}")  # fmt: skip
    comparison = run_comparison(prepare(compose(*given)), tmp_path)
    (log,) = comparison.logs
    assert np.isnan(log.requests["itl_max_s"]).all()
    assert comparison.rows[0].metrics["itl_p99_s"] is None
