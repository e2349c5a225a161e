"""CPU seconds of whole processes, beside those of another checkout.

    python -m tests.cli.start [against=CHECKOUT] [trace=FILE]

The demo, a run of one request, the help; with the Azure conversation trace of 2023 also the target
of docs/performance.md.  Each is the best of three, and the checkouts take turns, so that a machine
that is busy is as busy for both.  Some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.command.tables import markdown_table
from tests.engine.compiled.scale import OPTIONS
from tests.places import ROOT

ROUNDS = 3
ONE_REQUEST = ("+workload=uniform", "workload.num_requests=1", "allocator=[paged]")
COMMANDS = {
    "help": ("--help",),
    "one request, report=none": (*ONE_REQUEST, "report=none"),
    "one request": ONE_REQUEST,
    "20 jobs of a sweep, report=none": (
        "-m", *ONE_REQUEST, "report=none",
        f"allocators.paged.block_size={','.join(map(str, range(4, 24)))}",
    ),
    "demo": ("+workload=beam",),
    "demo with 5 requests": ("+workload=beam", "workload.num_requests=5"),
}  # fmt: skip


def cpu_s(checkout: Path, options: tuple[str, ...]) -> float:
    """Return the CPU seconds of a process and its children, its compiled modules cached."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *options], cwd=folder, env=environment,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(options)} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str]) -> int:
    """Print the table."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if not given.keys() <= {"against", "trace"} or not all(map(os.path.exists, given.values())):
        print("expected against=CHECKOUT and trace=FILE, which exist", file=sys.stderr)
        return 2
    commands = dict(COMMANDS)
    if "trace" in given:
        path = Path(given["trace"]).resolve()
        lengths = (
            f"workload.{part}={{kind: empirical, path: {path}, column: {column}}}"
            for part, column in (("prompt", "ContextTokens"), ("output", "GeneratedTokens"))
        )
        commands["the target"] = (
            *OPTIONS, *lengths, "workload.num_requests=19000", "allocator=[paged]",
        )  # fmt: skip
    checkouts = [Path(given["against"]).resolve()] if "against" in given else []
    checkouts.append(ROOT)
    rows = []
    for name, options in commands.items():
        found: list[list[float]] = [[] for _ in checkouts]
        for _ in range(ROUNDS):
            for times, checkout in zip(found, checkouts, strict=True):
                times.append(cpu_s(checkout, options))
        rows.append((name, *(f"{min(times):.2f}" for times in found)))
        print(*rows[-1], sep=": ", file=sys.stderr)
    heads = ("before", "now") if len(checkouts) == 2 else ("CPU s",)
    print(markdown_table(("process", *heads), rows, "r" * len(heads)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
