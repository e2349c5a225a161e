"""Every command has the same frame: help, one line for what is wrong, statuses, output."""

import os
import signal
import subprocess
import sys

import pytest

from harness.command.frame import FAILED, INTERRUPTED, OK, WRONG, run_command
from harness.errors import ConfigError
from harness.results import ResultsError


def test_help_prints_the_usage_and_runs_nothing(capsys):
    assert run_command(lambda given: 1 / 0, "usage\n", ["a=1", "--help"]) == OK
    assert capsys.readouterr().out == "usage\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("a is wrong"), WRONG, "error: a is wrong"),
        (ResultsError("b is wrong"), WRONG, "error: b is wrong"),
        (OSError(28, "No space left"), FAILED, "error: cannot write it: [Errno 28] No space left"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted; nothing was written"),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    def main(given):
        raise error

    assert run_command(main, "usage", [], writing="it") == status
    assert capsys.readouterr().err == f"{line}\n"


PRINTS = """
import sys
from pathlib import Path
from harness.command.frame import run_command
def main(given):
    for _ in range(3):
        print("x" * 100_000)
    Path(given[0]).write_text("all of it")
    return 0
sys.exit(run_command(main, None))
"""


@pytest.mark.parametrize(("sink", "status"), [("/dev/full", FAILED), ("closed pipe", OK)])
def test_output_that_fails_costs_no_results(tmp_path, sink, status):
    if sink == "/dev/full":
        stdout = open(sink, "w")  # noqa: SIM115
    else:
        end, stdout = os.pipe()
        os.close(end)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, str(tmp_path / "kept")],
        stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert (tmp_path / "kept").read_text() == "all of it"
    lines = done.stderr.splitlines()
    assert len(lines) == (status == FAILED)
    assert all("cannot write what is printed" in line for line in lines)


def test_sigterm_is_ctrl_c(capsys):
    def main(given):
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert run_command(main, None, []) == INTERRUPTED


def test_ctrl_c_while_a_command_is_imported_leaves_no_traceback():
    ends = {}
    for name in ("-m", "notebook"):
        code = f"import sys; sys.argv[:] = [{name!r}]; import harness; raise KeyboardInterrupt"
        ends[name] = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ends["-m"].returncode, ends["-m"].stderr) == (-signal.SIGINT, "")
    assert "Traceback" in ends["notebook"].stderr
    code = "import sys; sys.argv[:] = ['-m']; import harness; 1 / 0"
    broken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ZeroDivisionError" in broken.stderr
