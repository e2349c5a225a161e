"""The step `calibrate`: the file that cost_model=calibrated reads, by the public command."""

from __future__ import annotations

import json
from importlib.util import find_spec

from harness.measure.job import Job, Unmeasurable
from harness.measure.subprocesses import last_line, release, run_command, without_paths

MODEL = {"cuda": "opt-13b", "cpu": "llama-tiny"}


def run(job: Job) -> None:
    """Calibrate, and compare simulated with measured steps."""
    if find_spec("harness.measure.calibrate.__main__") is None:
        raise Unmeasurable("there is no command harness.measure.calibrate in this checkout")
    model, kind = MODEL[job.device.type], job.device.type
    path = job.out / f"calibration-{model}.json"
    arguments = [
        "-m",
        "harness.measure.calibrate",
        f"model={model}",
        f"device={kind}",
        "quick=true",
    ]
    if kind == "cpu":
        # A CPU's calibration takes a minute, its comparison another: here it only has to work.
        arguments += ["compare=false", "repeats=1"]
    release(job.device)
    done = run_command([*arguments, f"out={path}"], job.left_s())
    without_paths(done, job.out)
    job.results["run"] = done
    if path.is_file():
        job.results["file"] = path.name
        job.results["comparison"] = json.loads(path.read_text(encoding="utf-8")).get("comparison")
    if done["timed_out"]:
        job.results.setdefault("left_out", []).append("what the command was interrupted in")
    elif done["exit_status"]:
        raise RuntimeError(f"status {done['exit_status']}: {last_line(done)}")
