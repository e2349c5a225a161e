"""A sweep killed half-way with SIGKILL, resumed, and held to one that nobody killed.

    python -m tests.cli.sweeps.killed [JOBS [OVERRIDE ...]]

prints what was there when it was killed, what the resumed sweep ran, and whether the two tables
are one.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.results.metrics import METRICS

#: jobs of some milliseconds
SMALL = (
    "+workload=uniform", "workload.num_requests=3", "workload.prompt={low: 2, high: 20}",
    "workload.output={low: 2, high: 9}", "kv_tokens=600", "model=llama-tiny", "engine.max_len=128",
    "engine.max_num_seqs=8", "allocator=[paged,contiguous_max]", "report=none",
)  # fmt: skip


def command(folder, *overrides):
    return [sys.executable, "-m", "harness", "-m", *SMALL, *overrides, f"hydra.sweep.dir={folder}"]


def ended(folder):
    return sum(1 for _ in folder.glob("*/job.json"))


def kill_half_way(folder, jobs, *overrides):
    """Begin a sweep and kill it when half of its jobs have ended; return how many had."""
    process = subprocess.Popen(
        command(folder, f"seed=range(0,{jobs})", *overrides), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while ended(folder) < jobs // 2 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return ended(folder)


def table(folder):
    """The combined table of a sweep, without what is measured on a clock."""
    measured = {metric.name for metric in METRICS if not metric.deterministic}
    with (folder / "sweep.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in measured} for row in csv.DictReader(file)]


def run(folder, jobs, *overrides):
    done = subprocess.run(
        command(folder, f"seed=range(0,{jobs})", *overrides),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def times_written(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/job.json")}


def main(jobs, *overrides):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        left = kill_half_way(folder / "killed", jobs, *overrides)
        print(f"killed after {time.monotonic() - start:.1f} s: {left} of {jobs} jobs had ended")
        before = times_written(folder / "killed")
        start = time.monotonic()
        done = run(folder / "killed", jobs, "sweep.resume=true", *overrides)
        after = times_written(folder / "killed")
        kept = sum(after[name] == written for name, written in before.items())
        lines = re.findall(r"^\[\d+/\d+\]", done.stdout, re.MULTILINE)
        took = time.monotonic() - start
        print(f"resumed in {took:.1f} s: {len(lines)} jobs run, {kept} of {left} left as they were")
        start = time.monotonic()
        run(folder / "whole", jobs, *overrides)
        print(f"the same sweep at one go: {time.monotonic() - start:.1f} s")
        one, other = table(folder / "killed"), table(folder / "whole")
        print(json.dumps({"rows": len(one), "same": one == other}))
    return 0 if one == other else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200, *sys.argv[2:]))
