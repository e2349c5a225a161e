"""Options of what is recorded beside the results, as Hydra knows them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import ConfigError
from harness.observers.memory_map import parse_window

TRACES = ("none", "chrome")
REPORTS = ("html", "none")


@dataclass
class HarnessSpec:
    """`trace`: none or chrome. `memory_map`: START:STOP, in steps. Neither changes a result."""

    trace: str = "none"
    memory_map: str | None = None


def check_recording(spec: HarnessSpec, report: str) -> None:
    """Raise `ConfigError` for an option that is none."""
    if spec.trace not in TRACES:
        raise ConfigError(f"harness.trace must be one of {', '.join(TRACES)}, got {spec.trace!r}")
    if report not in REPORTS:
        raise ConfigError(f"report must be one of {', '.join(REPORTS)}, got {report!r}")
    if spec.memory_map is not None:
        try:
            parse_window(spec.memory_map)
        except ValueError as error:
            raise ConfigError(str(error)) from error
