"""What a sweep prints while it goes on: a line a job, with the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.results.numbers import short_number
from harness.results.options import short_names
from harness.results.outputs import outputs_sentence
from harness.results.runlog import ResultRow


class JobLines:
    """Says of each job what it was given, which allocator served most, and how long is left.

    swept: the names of the options that differ between jobs.
    jobs: how many there are, None where that is not known; before: how many had ended already.
    """

    def __init__(
        self,
        swept: Sequence[str],
        jobs: int | None,
        before: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = short_names(swept)
        self._jobs, self._ended, self._before = jobs, before, before
        self._now, self._start_s = now, now()

    def line(self, overrides: Sequence[str], rows: Sequence[ResultRow]) -> str:
        """Return the line of a job: `[2/8] block_size=16: paged 1.40 req/s; 9 s left`."""
        self._ended += 1
        elapsed_s = self._now() - self._start_s
        left = max(0, self._jobs - self._ended) if self._jobs is not None else 0
        # What had ended before this start took none of its time.
        a_job_s = elapsed_s / (self._ended - self._before)
        time_s, what = (a_job_s * left, "left") if left else (elapsed_s, "in all")
        count = f"{self._ended}/{self._jobs}" if self._jobs is not None else f"{self._ended}"
        took = f"{_duration(time_s)} {what}"
        lines = [f"[{count}] {self._label(overrides)}: {_outcome(rows)}; {took}"]
        outputs = outputs_sentence(rows)
        if outputs and "differ" in outputs:
            lines.append(f"  outputs: {outputs}")
        return "\n".join(lines)

    def _label(self, overrides: Sequence[str]) -> str:
        given = (line.lstrip("+").partition("=") for line in overrides)
        swept = (f"{self._names[name]}={value}" for name, _, value in given if name in self._names)
        return " ".join(swept) or ("the only point" if self._jobs == 1 else " ".join(overrides))


def _outcome(rows: Sequence[ResultRow]) -> str:
    """Return the allocator that serves most, where there are several, and those that did not."""
    rates = {row.allocator: row.metrics.get("requests_per_s") or 0.0 for row in rows if row.ok}
    parts = []
    if rates:
        best = max(rates, key=rates.__getitem__)
        most = "best " * (len(rates) > 1)
        parts.append(f"{most}{best} {short_number(rates[best], decimals=3)} req/s")
    parts += [f"{row.allocator} {row.status}" for row in rows if not row.ok]
    return ", ".join(parts) or "nothing was run"


def _duration(seconds: float) -> str:
    for unit_s, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"
