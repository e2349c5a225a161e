"""SGLang's `bench_serving --output-details`: a line of arrays a run, without start times."""

from __future__ import annotations

from typing import Any

from harness.replay.formats.arrays import from_arrays
from harness.replay.formats.source import Source
from harness.replay.records import Records

NAME = "sglang bench_serving"
KEYS = {"completed", "dataset_name", "request_rate", "total_input_tokens"}


def runs(source: Source) -> list[Any] | None:
    """The lines of a file of SGLang's client; None for any other file."""
    return source.objects_with(KEYS)


def read(where: str, run: Any) -> Records:
    """Read one line."""
    return from_arrays(where, run, NAME, "--output-details")
