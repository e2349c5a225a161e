"""What a client's file says, before it is known when its requests arrived."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from workloads.requests import FloatArray, IntArray


@dataclass
class Records:
    """The requests of one run of a client, in the order of its file: columns of length n.

    prompt_tokens: None where the file has none.  start_s: when each was sent, from any origin; None
    where the file does not say.  itls_s: gaps between the client's chunks, one array a request.
    failed: those without an answer; their other entries mean nothing, but for `start_s`, and there
    it may be NaN.  rate: requests/s asked for, infinity for all at once.  concurrency: of a closed
    loop.  duration_s: of the run, as the client has it.  notes: what the user should know, a line
    each.
    """

    format: str
    output_tokens: IntArray
    ttft_s: FloatArray
    e2e_s: FloatArray
    failed: np.ndarray
    prompt_tokens: IntArray | None = None
    prompt_words: IntArray | None = None
    start_s: FloatArray | None = None
    itls_s: list[FloatArray] | None = None
    error: str | None = None
    model: str | None = None
    rate: float | None = None
    burstiness: float | None = None
    concurrency: int | None = None
    duration_s: float | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.failed)
