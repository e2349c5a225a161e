"""Files of benchmark clients: one module a format, recognised by what a file holds.

A format is a module with `NAME`; `runs(source)`, which gives the runs that a file holds or None
where it is not of this format; and `read(where, run)`, which makes `Records` of one of them.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from harness.replay.errors import ReplayError
from harness.replay.formats import aiperf, genai_perf, guidellm, plain, sglang, vllm
from harness.replay.formats.source import open_source
from harness.replay.records import Records

FORMATS: tuple[ModuleType, ...] = (sglang, vllm, guidellm, aiperf, genai_perf, plain)


def read(path: str | Path, number: int | None = None) -> Records:
    """Read run `number` (from 1) of a measured file; without it the file must hold only one.

    Raises ReplayError of one line for a file that is absent, damaged, of no known format, or of
    several runs of which none is chosen.
    """
    source = open_source(Path(path).expanduser())
    where = str(path)
    for each in FORMATS:
        runs = each.runs(source)
        if runs is None:
            continue
        if not runs:
            raise ReplayError(f"{where}: {each.NAME}: holds no run")
        if number is None and len(runs) > 1:
            raise ReplayError(
                f"{where}: holds {len(runs)} runs: choose one with run=1 .. run={len(runs)}"
            )
        if number is not None and not 1 <= number <= len(runs):
            raise ReplayError(f"{where}: run={number}, but the file holds {len(runs)}")
        at = where if len(runs) == 1 else f"{where}: run {number}"
        return each.read(at, runs[(number or 1) - 1])
    if "# TYPE vllm:" in source.text:
        raise ReplayError(
            f"{where}: a server's metrics: give them as metrics=FILE, beside measured="
        )
    names = ", ".join(each.NAME for each in FORMATS)
    raise ReplayError(
        f"{where}: of no known format; there are {names} (a header of {','.join(plain.COLUMNS)})"
    )
