"""The folder that a command writes its results to."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from harness.errors import ConfigError


def out_folder(given: str | None, command: str) -> Path:
    """Return the folder that `out=` gives, or a dated one of the command's own; make nothing.

    Asked before the work, so that a mistake does not show only after minutes of simulation.
    Raises ConfigError, one line, where nothing can be written.
    """
    out = Path(given or f"results/runs/{command}-{datetime.now():%Y%m%d-%H%M%S}").expanduser()
    check_folder("out", out)
    return out


def check_folder(option: str, folder: Path) -> None:
    """Raise `ConfigError`, one line that names the option, where nothing can be written."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{option}={folder} is a file; expected a directory")
    nearest = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}={folder}: {nearest} cannot be written")
