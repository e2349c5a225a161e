"""All records in one file, written again after each step, so it is there whatever ends it all."""

from __future__ import annotations

import tarfile
from pathlib import Path

from harness.errors import ConfigError
from harness.results.atomic import replacing


def check_archive(target: Path, folder: Path) -> None:
    """Make the directory of `target`.  Raises `ConfigError` if it cannot be written there."""
    if target.is_dir() or folder in target.parents:
        raise ConfigError(f"archive={target} must be a file outside of out={folder}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"archive={target} cannot be made: {error.strerror}") from error


def write_archive(folder: Path, target: Path) -> None:
    """Replace `target` by what `folder` holds, as a .tar.gz under the folder's own name."""
    with replacing(target) as temporary, tarfile.open(temporary, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
