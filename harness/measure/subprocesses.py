"""Other commands of the harness, run as a user would run them, but not longer than a step may."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import Any

import torch

from harness.measure.job import Job
from harness.results.environment import ROOT

#: seconds that a command has to write what it holds, once it was interrupted
GRACE_S = 15.0
#: and at least, whatever the limit: a busy machine takes a while to wake it
LEAST_GRACE_S = 10.0
#: characters of its output that are kept
KEPT_CHARS = 6000


def run_for(
    job: Job, arguments: list[str], limit_s: float, unreached: str, **options: Any
) -> dict[str, Any]:
    """Run `python ARGUMENTS` as (a part of) a step and note it in `results.run`; see `run_python`.

    The device's memory is given back first, because the command is to have it.  `unreached` says
    in the record what is missing if the time does not suffice.
    """
    release(job.device)
    done = run_python(arguments, limit_s, **options)
    for key in ("command", "output"):
        # A record names no place of whoever made it.
        done[key] = str(done[key]).replace(str(job.out), "OUT").replace(f"{ROOT}{os.sep}", "")
    job.results["run"] = done
    if done["timed_out"]:
        job.leave_out(unreached)
    return done


def release(device: torch.device) -> None:
    """Give the device's memory back to the system: another process is to have it."""
    gc.collect()
    if device.type == "cuda":
        # After a fault on the device this fails too; the other process is none the worse for it.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def run_python(
    arguments: list[str], limit_s: float, *, cwd: Path | None = None, **variables: str
) -> dict[str, Any]:
    """Run `python ARGUMENTS`; return the command, its status, seconds and the end of its output.

    It is interrupted (as by Ctrl-C) so early that it ends within `limit_s`: whatever it has by
    then, it writes.  `timed_out` says that this happened.  `variables` join its environment.
    """
    # The project may be used from a checkout and not be installed.
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, **variables}
    grace_s = min(GRACE_S, limit_s / 4)
    began_s = perf_counter()
    # A file and no pipe: what outlives the command and holds its output would be waited for.
    with TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=cwd,
            # Of a shell's background jobs SIGINT is ignored, and a child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            limits_s = (max(0.1, limit_s - grace_s), max(LEAST_GRACE_S, grace_s))
            timed_out = not _ends(process, limits_s)
        except BaseException:
            # It may end what it writes, and is not left behind.  Ctrl-C in a terminal has reached
            # it too, and one more at once would cut short what it writes.
            _ends(process, (GRACE_S / 3, GRACE_S / 3), KeyboardInterrupt)
            raise
        output.seek(0)
        printed = output.read()
    return {
        "command": shlex.join(["python", *arguments]),
        "exit_status": process.returncode,
        "timed_out": timed_out,
        "seconds": round(perf_counter() - began_s, 3),
        "output": printed[-KEPT_CHARS:],
    }


def _ends(
    process: subprocess.Popen[bytes],
    limits_s: tuple[float, float],
    *hurried_by: type[BaseException],
) -> bool:
    """Say whether a process ends within the first limit; interrupt it if not.

    It is killed after the second.  An exception of `hurried_by` ends a limit early.
    """
    for limit_s, last in zip(limits_s, (signal.SIGINT, signal.SIGKILL), strict=True):
        try:
            process.wait(limit_s)
            return last is signal.SIGINT
        except (subprocess.TimeoutExpired, *hurried_by):
            process.send_signal(last)
    process.wait()
    return False


def last_line(found: dict[str, Any]) -> str:
    """Return the last line that a command printed."""
    lines = str(found["output"]).strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
