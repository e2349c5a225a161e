"""`vllm bench serve --save-result --save-detailed`, and `benchmark_serving.py` before it.

One document of arrays a run; `--append-result` puts one behind the other.  Until mid-2025 it holds
neither `start_times` nor `latencies`; some versions between have the first and not the second.
"""

from __future__ import annotations

from typing import Any

from harness.replay.formats import fields
from harness.replay.formats.arrays import from_arrays
from harness.replay.formats.source import Source
from harness.replay.records import Records

NAME = "vllm bench serve"
KEYS = {"completed", "num_prompts", "request_rate", "total_input_tokens"}


def runs(source: Source) -> list[Any] | None:
    """The documents of a file of vLLM's client; None for any other file."""
    return source.objects_with(KEYS)


def read(where: str, run: Any) -> Records:
    """Read one document."""
    records = from_arrays(where, run, NAME, "--save-result --save-detailed")
    records.model = fields.optional_text(run.get("model_id"))
    return records
