"""Reports of runs in which a model was really run: measured, where, and whether outputs agree."""

import pytest

from harness.report import write_report
from harness.results import ResultRow
from harness.results.summary import summarize
from tests.report.runs import ENVIRONMENT, config, log
from tests.results.directories import write_run

CPU = {"name": "model", "device": "cpu", "dtype": "float32", "backend": "cpu"}


def report_of(path, executor, digests, environment=None, more=None):
    logs = [log(name) for name in ("paged", "virtual")]
    rows = [
        ResultRow(each.allocator, metrics=summarize(each), output_digest=digest)
        for each, digest in zip(logs, digests, strict=True)
    ]
    environment = {**ENVIRONMENT, **(environment or {})}
    settings = {**config(), "executor": executor, **(more or {})}
    write_run(path, settings, environment, rows, logs)
    write_report([path], path)
    return (path / "report.md").read_text()


def test_a_real_run_names_its_machine_and_says_that_outputs_agree(tmp_path):
    text = report_of(tmp_path, CPU, ["sha256:0123456789abcdef"] * 2)
    assert text.startswith("# beam, OPT-13B on A CPU\n")
    assert "times measured (cpu, float32, cpu attention)" in text
    assert "the same tokens from all 2 allocators (sha256:0123456789ab)" in text


def test_outputs_that_differ_are_told_apart(tmp_path):
    cuda = {"name": "model", "device": "cuda", "dtype": "bfloat16", "backend": "triton"}
    text = report_of(tmp_path, cuda, ["sha256:aa", "sha256:bb"], {"gpu": {"name": "A GPU"}})
    assert text.startswith("# beam, OPT-13B on A GPU\n")
    assert "the tokens differ: paged (sha256:aa); virtual (sha256:bb)" in text


@pytest.mark.parametrize("executor", [{"name": "simulated"}, None])
def test_a_simulated_run_names_the_hardware_it_stands_for(tmp_path, executor):
    text = report_of(tmp_path, executor, [None, None])
    assert text.startswith("# beam, OPT-13B on A100\n")
    assert "times simulated" in text
    assert "outputs" not in text


def test_a_measured_run_warns_of_noise_and_a_simulated_one_does_not(tmp_path):
    (tmp_path / "real").mkdir()
    warning = "take differences below a quarter for noise"
    assert warning in report_of(tmp_path / "real", CPU, ["sha256:aa"] * 2)
    assert warning not in report_of(tmp_path / "simulated", None, [None, None])


def test_a_calibrated_run_names_the_file_and_no_gpu(tmp_path):
    cost = {"cost_model": {"name": "calibrated", "file": "/a/folder/cal.json"}}
    text = report_of(tmp_path, None, [None, None], more=cost)
    assert text.startswith("# beam, OPT-13B on the machine of cal.json\n")
    assert "times simulated with the times in cal.json" in text
