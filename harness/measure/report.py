"""Tables from the records of a directory, in Markdown; nothing in them is written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.measure.options import STEPS
from harness.measure.tables import DRAWN, Record, table
from harness.results.atomic import write_text

#: what the report reads of every record
READ = {"status", "reason", "command", "started", "seconds", "environment", "results"}


def write_report(directory: Path) -> Path:
    """Write DIRECTORY/README.md from the records in it; return its path.

    Raises `ConfigError` if there is none or one cannot be read.
    """
    records = load(directory)
    parts = [_head(records)]
    for step, record in records.items():
        parts.append(_step(step, record))
        if step == "curve":
            parts.append(_picture(directory, record))
    path = directory / "README.md"
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def load(directory: Path) -> dict[str, Record]:
    """Return the records in a directory by step, in the order of the steps."""
    found = {}
    for step in STEPS:
        path = directory / f"{step}.json"
        if not path.is_file():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: not a record ({error})") from error
        if not _is_record(record):
            raise ConfigError(f"{path}: not a record of harness.measure")
        found[step] = record
    if not found:
        raise ConfigError(f"{directory} holds no record of harness.measure")
    return found


def _is_record(found: Any) -> bool:
    if not isinstance(found, dict) or not set(found) >= READ:
        return False
    parts = (found["environment"], found["results"])
    return isinstance(found["status"], str) and all(isinstance(part, dict) for part in parts)


def _head(records: dict[str, Record]) -> str:
    device = next(iter(records.values()))
    gpu = device["environment"].get("accelerator")
    name = gpu["name"] if gpu else "a CPU: this proves the command and measures no GPU"
    lines = [f"# Measured on {name}", ""]
    if any(record.get("quick") for record in records.values()):
        lines += ["Tiny sizes (quick=true): not to be quoted.", ""]
    lines.append("Written by `python -m harness.measure report` from the records beside it.")
    rows = []
    for step, record in records.items():
        versions = record["environment"].get("versions", {})
        git = record["environment"].get("git") or {}
        rows.append(
            (
                step, record["status"], record["seconds"], record["started"],
                (git.get("commit") or "-")[:12] + ("+" if git.get("dirty") else ""),
                versions.get("torch"), versions.get("triton"),
                (record["environment"].get("accelerator") or {}).get("driver"),
                record["reason"],
            )
        )  # fmt: skip
    head = ("step", "status", "s", "begun", "commit", "torch", "triton", "driver", "reason")
    return "\n".join([*lines, "", table(head, rows)])


def _picture(directory: Path, record: Record) -> str:
    """Draw the curve beside the records; return what the page shows of it."""
    path = directory / "curve.png"
    path.unlink(missing_ok=True)
    try:
        from harness.measure.picture import draw, write_picture

        chart = draw(record["results"])
        if chart is None:
            return ""
        write_picture(chart, path)
    except ImportError as error:
        return f"Not drawn: {error}."
    except (AttributeError, LookupError, TypeError, ValueError):
        return ""  # the tables say that the record ends too early
    return f"![{chart.title}]({path.name})\n\n{chart.description}"


def _step(step: str, record: Record) -> str:
    results = record["results"]
    parts = [f"## {step}", f"`{record['command']}`"]
    run = results.get("run")
    if run:
        parts.append(f"which ran `{run['command']}`")
    if record["status"] not in ("ok", "partial"):
        parts.append(f"{record['status'].capitalize()}: {record['reason']}")
    try:
        parts += DRAWN[step](results) if results else []
    except (AttributeError, LookupError, TypeError, ValueError):
        parts.append("The record ends before its tables; see the file itself.")
    left_out = results.get("left_out", [])
    if left_out:
        parts.append(f"No time for: {'; '.join(left_out)}.")
    return "\n\n".join(part for part in parts if part)
