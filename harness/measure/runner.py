"""Runs steps one after the other within the time given; the failure of one stops no other."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.command.output import say
from harness.measure.job import Job, Unmeasurable, one_line
from harness.measure.options import STEPS, MeasureOptions
from harness.measure.steps import checks, curve, environment, serving, vmm
from harness.measure.subprocesses import GRACE_S, last_line, run_python
from harness.results.atomic import write_text

if TYPE_CHECKING:
    import torch

#: seconds that a process of its own takes before its step begins, and after it
START_S = 12.0
#: a step that was given just what it needs begins, though a moment has gone since
MOMENT_S = 1.0


@dataclass(frozen=True)
class Step:
    """What `run(job)` does; it is not begun with less than `least_s` seconds left, and gets at
    most `share` of what is left after the least that later steps need."""

    run: Callable[[Job], None]
    least_s: float
    share: float


PLAN: dict[str, Step] = {
    "environment": Step(environment.run, 3, 1.0),
    "kernels": Step(checks.kernels, 20, 0.35),
    "curve": Step(curve.run, 20, 0.5),
    "vmm": Step(vmm.run, 8, 0.2),
    "identity": Step(checks.identity, 20, 0.4),
    "opt-13b": Step(serving.opt_13b, 90, 0.5),
    "llama-3-8b": Step(serving.llama_3_8b, 90, 1.0),
}
assert tuple(PLAN) == STEPS


def run_steps(
    options: MeasureOptions,
    out: Path,
    device: torch.device,
    command: str,
    environment: dict[str, Any],
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run the steps asked for, each leaving its record in `out`; return the status of each.

    `after_each` is called when a step has left its record.  Raises what is not an error of a step:
    KeyboardInterrupt, after the record was written.
    """
    deadline_s = time.monotonic() + options.limit_s
    # Tiny sizes need a fraction of the time.
    scale = 0.1 if options.quick else 1.0
    start_s = START_S if options.isolate else 0.0
    names = [name for name in PLAN if name in options.steps]
    found: dict[str, str] = {}
    for at, name in enumerate(names):
        left_s = deadline_s - time.monotonic()
        least_s, *later_s = (PLAN[other].least_s * scale + start_s for other in names[at:])
        share = PLAN[name].share if later_s else 1.0
        limit_s = max(least_s, share * (left_s - sum(later_s)))
        job = Job(name, options, out, device, command, environment, limit_s)
        if left_s >= least_s - MOMENT_S:
            say(f"{name}: begins, at most {limit_s:.0f} s")
            if options.isolate:
                _run_apart(job)
            else:
                _run(job)
        elif job.path.exists():
            say(f"{name}: skipped, {left_s:.0f} s were left; an earlier record is kept")
            found[name] = "skipped"
            continue
        else:
            job.end("skipped", f"{max(left_s, 0):.0f} s were left, it needs {least_s:.0f} s")
        found[name] = job.status
        say(f"{name}: {job.status}{f' ({job.reason})' if job.reason else ''}")
        after_each()
    return found


def _run_apart(job: Job) -> None:
    """Run the step by a command of its own, which writes the record."""
    options = job.options
    arguments = [
        *("-m", "harness.measure", f"only={job.step}", f"device={options.device}"),
        *(f"out={job.out}", f"limit_s={job.limit_s - START_S:.1f}"),
        *("isolate=false", f"quick={str(options.quick).lower()}"),
    ]
    given = {"requests": options.requests, "commit": options.commit}
    arguments += [f"{key}={value}" for key, value in given.items() if value is not None]
    job.path.unlink(missing_ok=True)
    try:
        done = run_python(arguments, job.limit_s + GRACE_S)
    except KeyboardInterrupt:
        if not job.path.exists():
            job.end("partial", "interrupted before it began")
        raise
    if not job.path.exists():
        job.end("failed", f"its process wrote nothing: {last_line(done)}")
        return
    record = json.loads(job.path.read_text(encoding="utf-8"))
    job.status, job.reason = record["status"], record["reason"] or ""
    if done["exit_status"] < 0 or (done["timed_out"] and job.status == "partial"):
        # It could not say so itself.
        record["reason"] = job.reason = f"ended from outside after {done['seconds']:.0f} s"
        write_text(job.path, json.dumps(record, indent=1) + "\n")


def _run(job: Job) -> None:
    job.save()
    try:
        PLAN[job.step].run(job)
    except Unmeasurable as error:
        job.end(error.status, " ".join(str(error).split()))
    except KeyboardInterrupt:
        job.end("partial", "interrupted")
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        job.end("failed", f"{one_line(error)} ({Path(frame.filename).name}:{frame.lineno})")
    else:
        left_out = len(job.results.get("left_out", ()))
        if left_out:
            job.end("partial", f"no time for {left_out} of its measurements; see left_out")
        else:
            job.end("ok")
