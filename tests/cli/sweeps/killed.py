"""A sweep killed half-way with SIGKILL, resumed, and held to one that nobody killed.

    python -m tests.cli.sweeps.killed [JOBS [OVERRIDE ...]]

prints what was there when it was killed, what the resumed sweep ran, and whether the two tables
are one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cli.sweeps.small import command, ended, table

VARIANTS = "allocator=[paged,contiguous_max]"


def kill_half_way(folder, jobs, *overrides):
    """Begin a sweep and kill it, workers and all, when half of its jobs have ended."""
    process = subprocess.Popen(
        command(folder, VARIANTS, f"seed=range(0,{jobs})", *overrides), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while len(ended(folder)) < jobs // 2 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def timed_run(folder, jobs, *overrides):
    start = time.monotonic()
    done = subprocess.run(
        command(folder, VARIANTS, f"seed=range(0,{jobs})", *overrides),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


def main(jobs, *overrides):
    with tempfile.TemporaryDirectory() as name:
        killed, whole = Path(name) / "killed", Path(name) / "whole"
        start = time.monotonic()
        kill_half_way(killed, jobs, *overrides)
        left = ended(killed)
        took = time.monotonic() - start
        print(f"killed after {took:.0f} s: {len(left)} of {jobs} jobs had ended")
        took = timed_run(killed, jobs, "sweep.resume=true", *overrides)
        after = ended(killed)
        kept = sum(after[job] == written for job, written in left.items())
        print(f"resumed, {took:.0f} s: {kept} jobs left as they were, {len(after) - kept} run")
        print(f"at one go: {timed_run(whole, jobs, *overrides):.0f} s")
        same = table(killed) == table(whole)
        print(f"the two tables of {len(table(whole))} rows are {'equal' if same else 'different'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200, *sys.argv[2:]))
