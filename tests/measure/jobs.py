"""Jobs as the runner gives them to steps, and the records that a run of the command has left."""

import json

import torch

from harness.measure.job import Job
from harness.measure.options import MeasureOptions


def make_job(step, out, device="cpu", **options):
    """Return a job with half a minute for a step."""
    made = MeasureOptions(device=device, **options)
    return Job(step, made, out, torch.device(device), "command", {}, 30)


def records(out):
    """Return the records in a directory by step."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}
