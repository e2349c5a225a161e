"""Runs of a real model: every figure is measured, the tokens it emitted are compared exactly."""

import json

from harness.compare.__main__ import main
from harness.results import ResultRow
from tests.compare.runs import ENVIRONMENT, metrics, write

REAL = {"executor.name": "model", "executor.device": "cpu"}


def real(path, rate, digest="sha256:aa"):
    row = ResultRow("paged", metrics=metrics(output_tokens_per_s=rate), output_digest=digest)
    return write(path, [row], config={"executor": {}, **REAL}, environment=ENVIRONMENT)


def compare(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def test_a_slower_single_run_is_no_regression(tmp_path, capsys):
    status, out = compare(capsys, real(tmp_path / "a", 100.0), real(tmp_path / "b", 60.0))
    assert status == 0
    assert "no regression in 1 row; " in out
    assert "metrics of real runs not judged (1 and 1 samples" in out


def test_fewer_requests_that_finish_are_a_regression_at_once(tmp_path, capsys):
    fewer = ResultRow("paged", metrics=metrics(finished_requests=2), output_digest="sha256:aa")
    b = write(tmp_path / "b", [fewer], config={"executor": {}, **REAL}, environment=ENVIRONMENT)
    status, out = compare(capsys, real(tmp_path / "a", 100.0), b)
    assert status == 1
    assert "finished_requests" in out


def test_a_real_run_is_not_compared_with_a_simulated_one(tmp_path, capsys):
    simulated = write(tmp_path / "b", [ResultRow("paged", metrics=metrics())], config={"seed": 5})
    status, out = compare(capsys, real(tmp_path / "a", 100.0), simulated)
    assert status == 2
    assert "configuration differs: executor.name: model -> simulated\n" in out


def test_many_slower_runs_are_one(tmp_path, capsys):
    for name, rate in (("a", 100.0), ("b", 60.0)):
        for i in range(24):
            real(tmp_path / name / f"r{i:02}", rate + 0.1 * i)
    status, out = compare(capsys, tmp_path / "a", tmp_path / "b")
    assert status == 1
    assert "output_tokens_per_s" in out


def test_other_tokens_are_a_change(tmp_path, capsys):
    a, b = real(tmp_path / "a", 100.0), real(tmp_path / "b", 100.0, "sha256:bb")
    status, out = compare(capsys, a, b)
    assert status == 0
    assert "output_digest" in out
    assert "other tokens were emitted" in out
    assert compare(capsys, a, b, "--strict")[0] == 1


def preemptions(root, counts, environment=ENVIRONMENT):
    for i, count in enumerate(counts):
        row = ResultRow("paged", metrics=metrics(preemptions=count))
        config = {"executor": {}, **REAL}
        write(root / f"r{i:02}", [row], config=config, environment=environment)
    return root


def test_a_count_that_was_zero_is_judged_by_its_difference(tmp_path, capsys):
    none = preemptions(tmp_path / "none", [0] * 12)
    many = preemptions(tmp_path / "many", range(500, 512))
    status, out = compare(capsys, none, many)
    assert status == 1
    assert "preemptions 0 -> 505.5" in out
    assert compare(capsys, many, none)[0] == 0
    assert compare(capsys, none, many, "--tolerance", "preemptions=600")[0] == 0
    few = preemptions(tmp_path / "few", [0] * 11 + [1])
    assert compare(capsys, none, few)[0] == 0
    elsewhere = {"cpu_model": "Another CPU"}
    there = preemptions(tmp_path / "there", range(500, 512), elsewhere)
    assert compare(capsys, none, there)[0] == 2


def test_an_interval_without_an_end_is_null_in_json(tmp_path, capsys):
    often_none = preemptions(tmp_path / "often_none", [0, 0, 0, 1, 1, 1, 1])
    some = preemptions(tmp_path / "some", [3] * 7)
    _, out = compare(capsys, often_none, some, "--format", "json")
    (found,) = [f for f in json.loads(out)["findings"] if f["metric"] == "preemptions"]
    assert found["interval"] == [3.0, None]
    assert "[+200, +inf]" in compare(capsys, often_none, some, "--all")[1]
