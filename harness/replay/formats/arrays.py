"""What the clients of vLLM and SGLang share: a document of parallel arrays, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.replay.formats import fields
from harness.replay.records import Records

NEEDED = ("input_lens", "output_lens", "ttfts", "itls")


def from_arrays(where: str, document: Mapping[str, Any], format_name: str, how: str) -> Records:
    """Read `input_lens`, `output_lens`, `ttfts`, `itls` and, where they are, the others.

    `how` says which option makes the client write them.  A request failed that has an error text
    or no output.  Without `latencies` the end is the sum of the time to first token and the gaps,
    which is how the clients take it.
    """
    missing = [name for name in NEEDED if document.get(name) is None]
    if missing:
        fields.refuse(
            where, f"has no {', '.join(missing)}, so nothing of each request: write it with {how}"
        )
    prompts = fields.token_column(
        where, "input_lens", fields.items(where, "input_lens", document["input_lens"])
    )
    n = len(prompts)

    def column(name: str) -> Any:
        return fields.items(where, name, document[name], n)

    outputs = fields.token_column(where, "output_lens", column("output_lens"))
    ttft_s = fields.second_column(where, "ttfts", column("ttfts"))
    itls_s = fields.gap_columns(where, "itls", column("itls"))
    errors = ["" for _ in range(n)] if document.get("errors") is None else column("errors")
    told = np.array([bool(error) for error in errors], dtype=bool)
    if document.get("latencies") is not None:
        e2e_s = fields.second_column(where, "latencies", column("latencies"))
    else:
        e2e_s = ttft_s + np.array([gaps.sum() for gaps in itls_s], dtype=np.float64)
    start_s = None
    if document.get("start_times") is not None:
        start_s = fields.second_column(where, "start_times", column("start_times"))
    failed = told | (outputs == 0)
    bundled = sum(
        len(gaps) + 1 != tokens
        for gaps, tokens, lost in zip(itls_s, outputs.tolist(), failed, strict=True)
        if not lost
    )
    notes = []
    if bundled:
        notes.append(
            f"{bundled} of {n} requests have another number of gaps than output tokens - 1: the "
            "client counted chunks, so the measured ITL is that of chunks"
        )
    return Records(
        format=format_name,
        prompt_tokens=prompts,
        output_tokens=outputs,
        ttft_s=ttft_s,
        e2e_s=e2e_s,
        itls_s=itls_s,
        start_s=start_s,
        failed=failed,
        error=next((fields.optional_text(error) for error in errors if error), None),
        rate=fields.optional_rate(document.get("request_rate")),
        burstiness=fields.optional_positive(document.get("burstiness")),
        concurrency=fields.optional_count(document.get("max_concurrency")),
        duration_s=fields.optional_positive(document.get("duration")),
        notes=notes,
    )
