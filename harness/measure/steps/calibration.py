"""The step `calibrate`: the file that cost_model=calibrated reads, by the public command."""

from __future__ import annotations

import json

from harness.measure.job import Job
from harness.measure.subprocesses import last_line, run_for

MODEL = {"cuda": "opt-13b", "cpu": "llama-tiny"}


def run(job: Job) -> None:
    """Calibrate, and compare simulated with measured steps."""
    kind = job.device.type
    model = MODEL[kind]
    path = job.out / f"calibration-{model}.json"
    arguments = ["-m", "harness.measure.calibrate", f"model={model}", f"device={kind}"]
    arguments.append("quick=true")
    if kind == "cpu":
        # A CPU's calibration takes a minute, its comparison another: here it only has to work.
        arguments += ["compare=false", "repeats=1"]
    arguments.append(f"out={path}")
    done = run_for(job, arguments, job.left_s(), "what the command was interrupted in")
    if path.is_file():
        job.results["file"] = path.name
        job.results["comparison"] = json.loads(path.read_text(encoding="utf-8")).get("comparison")
    if done["exit_status"] and not done["timed_out"]:
        raise RuntimeError(f"status {done['exit_status']}: {last_line(done)}")
