"""A measured run: requests that were answered, when they came and how long they took."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from harness.replay.arrivals import ArrivalSpec, arrival_times
from harness.replay.errors import ReplayError
from harness.replay.records import Records
from workloads.requests import FloatArray, IntArray

#: by which clocks that were rounded may disagree
TOLERANCE_S = 2e-6


#: beyond any server that answers
SLOWEST_TOKEN_S = 5.0


@dataclass(frozen=True)
class MeasuredRun:
    """The answered requests in order of arrival: columns of length n.

    index: place of each in the file, counted from 0.  arrival_s: from the first one's, or None
    where only their order is known, as in a closed loop without start times.  itls_s: gaps between
    chunks, where the file has them.  concurrency: requests in flight, of a closed loop whose
    arrivals the simulation decides.
    """

    format: str
    index: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    ttft_s: FloatArray
    e2e_s: FloatArray
    arrival_s: FloatArray | None
    itls_s: list[FloatArray] | None
    failed: int
    arrivals: str
    model: str | None = None
    rate: float | None = None
    max_concurrency: int | None = None
    concurrency: int | None = None
    duration_s: float | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def span_s(self) -> float | None:
        """Seconds from the first arrival to the last end; the client's duration where unknown."""
        if self.arrival_s is None:
            return self.duration_s
        return float((self.arrival_s + self.e2e_s).max() - self.arrival_s.min())

    def take(self, chosen: IntArray) -> MeasuredRun:
        """The requests at these places, in that order; times are not moved."""
        return replace(
            self,
            index=self.index[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            ttft_s=self.ttft_s[chosen],
            e2e_s=self.e2e_s[chosen],
            arrival_s=None if self.arrival_s is None else self.arrival_s[chosen],
            itls_s=None if self.itls_s is None else [self.itls_s[i] for i in chosen.tolist()],
        )


def measured_run(
    where: str, records: Records, spec: ArrivalSpec, prompt_tokens: str | None = None
) -> MeasuredRun:
    """Check a file's records and put them in order of arrival; failed requests are left out.

    `prompt_tokens` states the prompts of a file that does not count them: a number, or `words` for
    a token a word.  Raises ReplayError, one line.
    """
    if not len(records):
        raise ReplayError(f"{where}: holds no request")
    answered = np.flatnonzero(~records.failed)
    if not len(answered):
        reason = f" ({records.error})" if records.error else ""
        raise ReplayError(f"{where}: all {len(records)} requests failed{reason}")
    prompts, notes = _prompts(where, records, prompt_tokens)
    _check(where, records, prompts, answered)
    times = arrival_times(where, records, spec)
    notes = [*records.notes, *notes, *times.notes, *_in_milliseconds(records, answered)]
    failed = len(records) - len(answered)
    if failed:
        notes.append(f"{failed} of {len(records)} requests failed and are left out of both sides")
    arrival_s, order = None, answered
    if times.arrival_s is not None:
        order = answered[np.argsort(times.arrival_s[answered], kind="stable")]
        arrival_s = times.arrival_s[order] - times.arrival_s[order[0]]
        if arrival_s[-1] > 1e8:
            raise ReplayError(
                f"{where}: request {order[-1]} starts {arrival_s[-1]:.3g} s after the first one; "
                "expected start times of one run"
            )
    ttft_s = records.ttft_s[order]
    return MeasuredRun(
        format=records.format,
        index=order,
        prompt_tokens=prompts[order],
        output_tokens=records.output_tokens[order],
        ttft_s=ttft_s,
        e2e_s=np.maximum(records.e2e_s[order], ttft_s),
        arrival_s=arrival_s,
        itls_s=None if records.itls_s is None else [records.itls_s[i] for i in order.tolist()],
        failed=failed,
        arrivals=times.kind,
        model=records.model,
        rate=records.rate,
        max_concurrency=records.concurrency,
        concurrency=times.concurrency,
        duration_s=records.duration_s,
        notes=notes,
    )


def _in_milliseconds(records: Records, answered: IntArray) -> list[str]:
    """Return a note if no server would take so many seconds a token."""
    a_token_s = records.e2e_s[answered] / np.maximum(records.output_tokens[answered], 1)
    middle_s = float(np.median(a_token_s))
    if middle_s <= SLOWEST_TOKEN_S:
        return []
    return [f"half of the requests take over {middle_s:.3g} s a token: are times in milliseconds?"]


def _prompts(where: str, records: Records, stated: str | None) -> tuple[IntArray, list[str]]:
    """The prompts' lengths and what is to be said of them."""
    if records.prompt_tokens is not None:
        if stated is not None:
            raise ReplayError(f"prompt_tokens={stated}: {where} has the prompts' lengths itself")
        return records.prompt_tokens, []
    if stated is None:
        raise ReplayError(
            f"{where}: does not say how many tokens the prompts have; state prompt_tokens=N for "
            "all of them, or prompt_tokens=words for a token a word"
        )
    if stated == "words" and records.prompt_words is not None:
        return records.prompt_words, ["prompts are counted as a token a word (prompt_tokens=words)"]
    if not stated.isascii() or not stated.isdigit() or not 1 <= int(stated[:12]) <= 2**31:
        raise ReplayError(f"prompt_tokens must be a whole number >= 1 or words, got {stated!r}")
    return np.full(len(records), int(stated)), [f"prompts are taken to have {stated} tokens each"]


def _check(where: str, records: Records, prompts: IntArray, answered: IntArray) -> None:
    """Refuse the first request that cannot have happened."""
    for i in answered.tolist():
        ttft, e2e = float(records.ttft_s[i]), float(records.e2e_s[i])
        if prompts[i] < 1:
            raise ReplayError(f"{where}: request {i} has a prompt of 0 tokens; expected at least 1")
        if not (math.isfinite(ttft) and math.isfinite(e2e)) or ttft < 0 or e2e < 0:
            raise ReplayError(
                f"{where}: times of request {i} run backwards: ttft {ttft:g} s, end to end "
                f"{e2e:g} s; expected no negative ones"
            )
        if ttft > e2e + TOLERANCE_S + 1e-6 * ttft:
            raise ReplayError(
                f"{where}: times of request {i} run backwards: its first token came after "
                f"{ttft:g} s and its end after {e2e:g} s"
            )
        if records.itls_s is not None and (records.itls_s[i] < -TOLERANCE_S).any():
            raise ReplayError(f"{where}: times of request {i} run backwards: a gap is negative")
