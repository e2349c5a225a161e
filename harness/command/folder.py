"""The folder that a command writes its results to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import ConfigError


def out_folder(given: str | None, command: str) -> Path:
    """Return the folder that `out=` gives, or a dated one of the command's own; make nothing.

    Asked before the work, so that a mistake does not show only after minutes of simulation.
    Raises ConfigError, one line, where nothing can be written.
    """
    out = Path(given or f"results/runs/{command}-{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    check_folder("out", out)
    return out


def check_own(out: Path, name: str, question: Mapping[str, Any]) -> None:
    """Raise `ConfigError`, one line, where `out` holds anything but answers to this question.

    name: of the JSON file of an answer, which holds every item of `question`.  A question that is
    asked again, after Ctrl-C say, may replace its answer; nothing else is written over.
    """
    held = sorted(each.name for each in out.iterdir()) if out.is_dir() else []
    if not held:
        return
    try:
        before = json.loads((out / name).read_text(encoding="utf-8"))
        same = all(before.get(key, ...) == value for key, value in question.items())
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        what = f"the answer to another question ({name})" if name in held else held[0]
        raise ConfigError(f"out={out} is not empty (it holds {what}); choose another or remove it")


def check_folder(option: str, folder: Path) -> None:
    """Raise `ConfigError`, one line that names the option, where nothing can be written."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{option}={folder} is a file; expected a directory")
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}={folder}: {nearest} cannot be written")
