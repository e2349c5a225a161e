"""A run directory that is empty, can be written, and belongs to one run alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Self

from harness.results.errors import ResultsError

try:
    import fcntl
except ImportError:  # not on Windows: there two runs at once are not told apart
    fcntl = None  # type: ignore[assignment]

#: lies in a run directory for as long as a run writes there
LOCK = ".lock"
#: what must fit on the disk for a run to begin: configuration, summary
LEAST_BYTES = 32 * 1024


class Busy(ResultsError):
    """Another run writes to the directory."""


class Claim:
    """Holds a directory until it is released; a process that dies holds nothing."""

    def __init__(self, run_dir: str | Path, *, used: bool = False) -> None:
        """Create the directory if need be, and lock it; `used` allows what it holds already.

        Raises `Busy` when another run writes there, `ResultsError` when it holds anything, is not
        a directory, or cannot be written.
        """
        self.path = Path(run_dir)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = sorted(entry.name for entry in self.path.iterdir())
            self._lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        except FileExistsError as error:
            raise ResultsError(f"{self.path}: not a directory") from error
        except OSError as error:
            raise ResultsError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise Busy(
                f"{self.path}: another run is writing there; choose another directory"
            ) from error
        self._check_room()
        held = [name for name in held if name != LOCK]
        if held and not used:
            self.release()
            raise ResultsError(
                f"{self.path}: the run directory exists and is not empty (it holds {held[0]}); "
                "choose another or remove it"
            )

    def _check_room(self) -> None:
        try:
            if os.write(self._lock, bytes(LEAST_BYTES)) < LEAST_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._lock)
            os.ftruncate(self._lock, 0)
        except OSError as error:
            self.release()
            raise ResultsError(f"{self.path}: cannot be written: {error.strerror}") from error

    @staticmethod
    def is_held(run_dir: Path) -> bool:
        """Whether a living process holds a directory."""
        try:
            lock = os.open(run_dir / LOCK, os.O_RDWR)
        except OSError:
            return False
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    def release(self) -> None:
        """Give the directory up; what was written there stays."""
        (self.path / LOCK).unlink(missing_ok=True)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
