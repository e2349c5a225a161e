"""Sweeps of small jobs, in this process or in one of their own."""

import csv
import json
import sys

from harness.cli.checks import check
from harness.cli.points import Points
from harness.cli.sweeps.launch import run_sweep
from harness.results.metrics import METRICS

#: jobs of some milliseconds
SMALL = (
    "+workload=uniform", "workload.num_requests=3", "workload.prompt={low: 2, high: 20}",
    "workload.output={low: 2, high: 9}", "kv_tokens=600", "model=llama-tiny", "engine.max_len=128",
    "engine.max_num_seqs=8", "report=none",
)  # fmt: skip


def arguments(folder, *overrides):
    return ["-m", *SMALL, "allocator=[paged]", *overrides, f"hydra.sweep.dir={folder}"]


def command(folder, *overrides):
    return [sys.executable, "-m", "harness", *arguments(folder, *overrides)]


def problem(folder, *overrides):
    """What is said of a sweep that cannot begin; None where it can."""
    points = Points()
    try:
        return check(arguments(folder, *overrides), points)[0]
    finally:
        points.release()


def sweep(folder, *overrides):
    """Run a sweep in this process, as the command does; return its exit status."""
    points = Points()
    try:
        found, _ = check(arguments(folder, *overrides), points)
        assert found is None, found
        return run_sweep(points.sweep, points)
    finally:
        points.release()


def ended(folder):
    """When each job that has ended did, by its folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/job.json")}


def table(folder):
    """The combined table of a sweep, without what is measured on a clock."""
    measured = {metric.name for metric in METRICS if not metric.deterministic}
    with (folder / "sweep.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in measured} for row in csv.DictReader(file)]


def rows(folder):
    return json.loads((folder / "sweep.json").read_text())["rows"]
