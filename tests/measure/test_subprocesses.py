"""How other commands are run, ended, and what of them is kept."""

import os
import signal
import sys

import pytest

from harness.measure.subprocesses import run_python


@pytest.mark.parametrize("here", [signal.default_int_handler, signal.SIG_IGN], ids=["", "nohup"])
def test_a_command_that_takes_too_long_is_interrupted_and_may_write(here):
    """Regression: started from a shell's background job it was killed instead."""
    script = (
        "import time\n"
        "try:\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('written')\n"
    )
    before = signal.signal(signal.SIGINT, here)
    try:
        found = run_python(["-c", script], 6.0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found["timed_out"]
    assert found["output"].split() == ["begun", "written"]


def test_a_command_that_does_not_listen_is_killed(monkeypatch):
    monkeypatch.setattr("harness.measure.subprocesses.LEAST_GRACE_S", 1.0)
    script = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert run_python(["-c", script], 2.0)["timed_out"]


def test_what_a_command_leaves_running_is_not_waited_for():
    script = (
        "import subprocess, sys\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)\n"
    )
    found = run_python(["-c", script], 50.0)
    os.kill(int(found["output"]), signal.SIGKILL)
    assert not found["timed_out"]


def test_the_status_and_the_output_of_a_command_are_kept():
    found = run_python(["-c", "import sys; print('a line'); sys.exit(3)"], 20.0)
    assert found["exit_status"] == 3
    assert found["output"] == "a line\n"
    assert not found["timed_out"]
    assert sys.executable not in found["command"]
