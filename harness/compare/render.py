"""A judgement as a table, as markdown for a pull request, and as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from harness.command.tables import markdown_table, text_table
from harness.compare.judgement import Finding, Judgement
from harness.results.metrics import BY_NAME

WORDS = {
    "worse": "REGRESSION",
    "missing": "MISSING",
    "better": "better",
    "changed": "changed",
    "tolerated": "within tolerance",
    "unsure": "cannot tell",
    "new": "new",
    "same": "same",
}
#: what is printed unless everything is asked for; most severe first
SHOWN = ("missing", "worse", "changed", "better", "tolerated", "new")
HEADERS = ("case", "allocator", "metric", "baseline", "current", "change", "verdict")
ALIGN = "lllrrrl"


def shown(judgement: Judgement, everything: bool) -> list[Finding]:
    """The findings worth a line, most severe first; within that in their own order."""
    kinds = (*SHOWN, "unsure", "same") if everything else SHOWN
    return [f for kind in kinds for f in judgement.findings if f.verdict == kind]


def as_table(judgement: Judgement, everything: bool = False) -> str:
    """Aligned columns, then remarks, then one line that says how it ended."""
    rows = [_cells(finding) for finding in shown(judgement, everything)]
    text = [text_table(HEADERS, rows, ALIGN)] if rows else []
    text += [f"note: {remark}" for remark in judgement.remarks]
    text += [f"could not compare: {problem}" for problem in judgement.problems]
    return "\n".join([*text, conclusion(judgement)]) + "\n"


def as_markdown(judgement: Judgement, everything: bool = False) -> str:
    """The same for a pull request; what is not a regression folds away."""
    failures = {id(finding) for finding in judgement.failures}
    found = shown(judgement, everything)
    mark = {0: "✅", 1: "❌", 2: "⚠️"}[judgement.exit_status]
    lines = [f"### {mark} KV-cache allocators: {_escape(conclusion(judgement))}", ""]
    lines += [f"- could not compare: {_escape(problem)}" for problem in judgement.problems]
    lines += [f"- {_escape(remark)}" for remark in judgement.remarks]
    if judgement.problems or judgement.remarks:
        lines.append("")
    lines += _markdown_table([f for f in found if id(f) in failures])
    rest = [f for f in found if id(f) not in failures]
    if rest:
        lines += ["<details>", f"<summary>{len(rest)} other</summary>", ""]
        lines += [*_markdown_table(rest), "</details>", ""]
    return "\n".join(lines)


def as_json(judgement: Judgement) -> str:
    """Every finding, with the verdict of the whole."""
    content = {
        "exit_status": judgement.exit_status,
        "conclusion": conclusion(judgement),
        "problems": judgement.problems,
        "remarks": judgement.remarks,
        "findings": [_record(finding) for finding in judgement.findings],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _record(finding: Finding) -> dict[str, Any]:
    record = asdict(finding)
    if finding.interval is not None:
        # JSON knows no infinity, where the interval has no end.
        record["interval"] = [end if math.isfinite(end) else None for end in finding.interval]
    return record


def conclusion(judgement: Judgement) -> str:
    """One line: how many regressions and where the first is, or that there is none."""
    counts = Counter(finding.verdict for finding in judgement.findings)
    kinds = ("better", "changed", "tolerated", "new")
    parts = [f"{counts[kind]} {WORDS[kind]}" for kind in kinds if counts[kind]]
    # In simulated runs only what is always measured can be unsure; that nobody needs to be told.
    unsure = [f for f in judgement.findings if f.verdict == "unsure" and _repeats(f.metric)]
    if unsure:
        parts.append(f"{len(unsure)} metrics of real runs not judged ({unsure[0].note})")
    compared = [finding for finding in judgement.findings if finding.verdict != "new"]
    rows = sum(1 for finding in compared if finding.metric == "status")
    if judgement.failures:
        found = shown(judgement, True)
        failing = {id(finding) for finding in judgement.failures}
        worst = next(finding for finding in found if id(finding) in failing)
        number = len(judgement.failures)
        head = f"{number} regression{'s' * (number > 1)}, first {describe(worst)}"
    elif judgement.problems:
        head = "could not compare everything"
    else:
        head = f"no regression in {rows} row{'s' * (rows != 1)}"
    return "; ".join([head, *parts])


def _repeats(metric: str) -> bool:
    return metric in BY_NAME and BY_NAME[metric].deterministic


def describe(finding: Finding) -> str:
    """`case / allocator: metric before -> after (change)` in one line."""
    where = f"{finding.case} / {finding.allocator}: {finding.metric}"
    before, after = value_texts(finding)
    change = change_text(finding)
    note = f", {finding.note}" if finding.note else ""
    unit = f" {finding.unit}" if finding.unit not in ("", "fraction") else ""
    return f"{where} {before} -> {after}{unit}{f' ({change})' if change else ''}{note}"


def value_texts(finding: Finding) -> tuple[str, str]:
    """Both values in few digits, yet in enough to tell them apart."""
    texts = ("", "")
    for digits in (6, 9, 17):
        texts = (_text(finding.baseline, digits), _text(finding.current, digits))
        if texts[0] != texts[1] or finding.verdict == "same":
            break
    return texts


def _text(value: object, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def change_text(finding: Finding) -> str:
    """Relative change, with its interval where it was measured."""
    if finding.change is None:
        return ""
    text = f"{100 * finding.change:+.2f} %"
    if 0 < abs(finding.change) < 5e-5:
        text = f"{100 * finding.change:+.1e} %"
    if finding.interval is not None:
        low, high = (100 * (end - 1) for end in finding.interval)
        text += f" [{low:+.0f}, {high:+.0f}]"
    return text


def _cells(finding: Finding) -> tuple[str, ...]:
    note = f" ({finding.note})" if finding.note else ""
    return (
        finding.case,
        finding.allocator,
        finding.metric,
        *value_texts(finding),
        change_text(finding),
        WORDS[finding.verdict] + note,
    )


def _markdown_table(findings: list[Finding]) -> list[str]:
    rows = [[_escape(cell) for cell in _cells(finding)] for finding in findings]
    return [markdown_table(HEADERS, rows, ALIGN), ""] if rows else []


def _escape(text: str) -> str:
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(old, new)
    # Names of options hold underscores, which would become emphasis.
    return text.replace("_", "\\_").replace("*", "\\*").replace("`", "\\`")
