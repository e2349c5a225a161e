"""What a comparison found: a verdict on each metric, and what could not be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.compare.load import Number

Verdict = Literal["same", "better", "worse", "missing", "tolerated", "changed", "unsure", "new"]
FAILING: tuple[Verdict, ...] = ("worse", "missing")


@dataclass
class Finding:
    """What became of one metric; `metric` is `status` for the row as a whole."""

    case: str
    allocator: str
    metric: str
    verdict: Verdict
    baseline: Number | str = None
    current: Number | str = None
    unit: str = ""
    direction: str = "none"
    change: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    note: str = ""


@dataclass
class Judgement:
    """All findings, what could not be compared, and remarks that decide nothing."""

    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    strict: bool = False

    @property
    def failures(self) -> list[Finding]:
        failing = (*FAILING, "changed") if self.strict else FAILING
        return [finding for finding in self.findings if finding.verdict in failing]

    @property
    def exit_status(self) -> int:
        """1 for a regression, which nothing excuses; else 2 if anything could not be compared."""
        return 1 if self.failures else 2 if self.problems else 0
