"""`python -m harness.measure [OPTION=VALUE ...]` and `python -m harness.measure report DIR`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from harness.command.frame import FAILED, INTERRUPTED, OK, run_command
from harness.errors import ConfigError
from harness.measure.options import USAGE, MeasureOptions, check_installed, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0: every step is complete, skipped or not possible here; 1: one failed or was cut short, or
    some were skipped and nothing was measured; 2, after one line, for input that is wrong; 130
    after Ctrl-C.
    """
    return run_command(_main, USAGE, arguments, writing="the records")


def _main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["report"]:
        return _report(arguments[1:])
    check_installed()
    return _measure(parse(arguments), f"python -m harness.measure {shlex.join(arguments)}".strip())


def _report(arguments: Sequence[str]) -> int:
    from harness.measure.report import write_report

    if len(arguments) != 1:
        raise ConfigError("report takes one directory: python -m harness.measure report DIR")
    directory = Path(arguments[0]).expanduser()
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory")
    print(f"Written: {write_report(directory)}")
    return OK


def _measure(options: MeasureOptions, command: str) -> int:
    import torch

    from harness.measure.archive import check_archive, write_archive
    from harness.measure.report import write_report
    from harness.measure.runner import run_steps
    from harness.measure.steps.environment import describe

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device=cuda, but torch sees no CUDA device; device=cpu quick=true tries the rest"
        )
    device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    environment = describe(device, options.commit)
    out = _out(options, environment["accelerator"])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be made: {error.strerror}") from error
    archive = Path(options.archive).expanduser().absolute() if options.archive else None
    if archive:
        check_archive(archive, out)

    def keep() -> None:
        if archive:
            write_archive(out, archive)

    interrupted, found = False, {}
    try:
        found = run_steps(options, out, device, command, environment, keep)
    except KeyboardInterrupt:
        interrupted = True
    print(f"Records in {out}; tables in {write_report(out)}")
    keep()
    if interrupted:
        return INTERRUPTED
    return _status(found)


def _status(found: Mapping[str, str]) -> int:
    """Return the exit status that the statuses of the steps come to."""
    if {"failed", "partial"} & set(found.values()):
        return FAILED
    # That the environment could be described is no measurement.
    measured = [name for name, status in found.items() if status == "ok" and name != "environment"]
    return FAILED if "skipped" in found.values() and not measured else OK


def _out(options: MeasureOptions, accelerator: dict | None) -> Path:
    """Return the directory of the records."""
    if options.out:
        out = Path(options.out).expanduser()
    elif accelerator is None:
        # What a CPU gives proves the chain and is no measurement: it is not among the tracked.
        out = Path(f"results/runs/measure-{datetime.now():%Y%m%d-%H%M%S}")
    else:
        name = re.sub(r"[^a-z0-9]+", "-", accelerator["name"].lower()).strip("-")
        out = Path(f"results/measured/{datetime.now():%Y-%m-%d}-{name}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out} is a file; expected a directory")
    return out.absolute()


if __name__ == "__main__":
    sys.exit(main())
