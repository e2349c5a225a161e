"""Options of the harness itself, as Hydra knows them: what is recorded beside the results."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import ConfigError
from harness.observers.memory_map import parse_window
from harness.results.writer import TIMELINES

TRACES = ("none", "chrome")
EXPORTS = ("none", "vllm")
REPORTS = ("html", "none")


@dataclass
class HarnessSpec:
    """What is recorded, and for how long a variant may run; none of them changes a result.

    `trace`: none or chrome. `export`: none, or vllm for the fields of its benchmark. `memory_map`:
    START:STOP, in steps. `variant_timeout_s`: seconds after which an allocator that has not served
    all requests is stopped (null: never).
    """

    trace: str = "none"
    export: str = "none"
    memory_map: str | None = None
    variant_timeout_s: float | None = None


def check_recording(spec: HarnessSpec, report: str, timeline: str) -> None:
    """Raise `ConfigError` for an option that is none."""
    if spec.trace not in TRACES:
        raise ConfigError(f"harness.trace must be one of {', '.join(TRACES)}, got {spec.trace!r}")
    if spec.export not in EXPORTS:
        raise ConfigError(
            f"harness.export must be one of {', '.join(EXPORTS)}, got {spec.export!r}"
        )
    if report not in REPORTS:
        raise ConfigError(f"report must be one of {', '.join(REPORTS)}, got {report!r}")
    if timeline not in TIMELINES:
        raise ConfigError(f"timeline must be one of {', '.join(TIMELINES)}, got {timeline!r}")
    if spec.memory_map is not None:
        try:
            parse_window(spec.memory_map)
        except ValueError as error:
            raise ConfigError(str(error)) from error
