"""One step while it runs: its record, the time it may take, and how it is kept."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.measure.options import MeasureOptions
from harness.results.atomic import write_text

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1
#: complete; cut short by time, with what there was until then; the others say why in `reason`
STATUSES = ("ok", "partial", "failed", "unsupported", "skipped")


class Unmeasurable(Exception):
    """This step cannot be done on this device; the text is one line."""

    status = "unsupported"


class Skipped(Unmeasurable):
    """This step, or a part of it, needs something that is not here; the text is one line."""

    status = "skipped"


@dataclass
class Job:
    """What a step is given.  It fills `results` and calls `save` whenever it has something."""

    step: str
    options: MeasureOptions
    out: Path
    device: torch.device
    command: str
    environment: dict[str, Any]
    limit_s: float
    results: dict[str, Any] = field(default_factory=dict)
    status: str = "partial"
    reason: str = "ended before it was complete"

    def __post_init__(self) -> None:
        self._began_s = time.monotonic()
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    @property
    def quick(self) -> bool:
        return self.options.quick

    @property
    def path(self) -> Path:
        return self.out / f"{self.step}.json"

    def left_s(self) -> float:
        """Return the seconds that this step may still take."""
        return self.limit_s - (time.monotonic() - self._began_s)

    def room(self, what: str, seconds: float = 0.0) -> bool:
        """Say whether there is time for `what`, which takes about `seconds`; note it if not."""
        if self.left_s() > seconds:
            return True
        self.leave_out(what)
        return False

    def leave_out(self, what: str) -> None:
        """Note what there was no time for."""
        self.results.setdefault("left_out", []).append(what)

    def save(self) -> None:
        """Write the record as it stands, atomically; numbers that JSON cannot hold become null."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "step": self.step,
            "status": self.status,
            "reason": self.reason or None,
            "command": self.command,
            "device": str(self.device),
            "quick": self.quick,
            "started": self._started,
            "seconds": round(time.monotonic() - self._began_s, 3),
            "limit_s": round(self.limit_s, 3),
            "environment": self.environment,
            "results": self.results,
        }
        finite = json.loads(json.dumps(record), parse_constant=lambda name: None)
        write_text(self.path, json.dumps(finite, indent=1) + "\n")

    def end(self, status: str, reason: str = "") -> None:
        """Set the status and write the record for the last time."""
        assert status in STATUSES, status
        self.status, self.reason = status, reason
        self.save()


def one_line(error: BaseException) -> str:
    """Return what went wrong as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400] if text else type(error).__name__
