"""The report as markdown: the same answers in the same order, figures as links to PNGs."""

from __future__ import annotations

import os
import re
from pathlib import Path

from harness.command.tables import markdown_table
from harness.report.caveats import caveats
from harness.report.charts import FIGURES
from harness.report.charts.chart import shown_categories
from harness.report.charts.waste import share_basis
from harness.report.collection import Collection, Run
from harness.report.numbers import Shown, percent
from harness.report.sections import cost_columns, main_columns, result_lines
from harness.report.verdict import verdicts
from harness.results.metrics import CATEGORY_DEFINITIONS
from harness.results.outputs import loop_sentence, outputs_sentence

_ALT = {
    "waste": "Stacked bars: where the KV memory went",
    "memory_over_time": "KV memory over time, by category",
    "time": "Stacked bars: what held each allocator back, and what its time was made of",
    "throughput": "Requests and output tokens per second",
    "latency": "Cumulative distributions of latency",
}


def render_markdown(collection: Collection, title: str, out_dir: Path) -> str:
    """The text of `report.md`; links to figures are relative to `out_dir`."""
    columns, costs = main_columns(collection), cost_columns(collection)
    limits = caveats(collection)
    lines = [f"# {escape(title)}", ""]
    lines += [escape(sentence) + "\n" for sentence in verdicts(collection)]
    lines += [f"- {escape(sentence)}" for sentence in limits] + [""] * bool(limits)
    lines += ["## Results", "", _table(collection, columns), "", _key(collection, columns), ""]
    lines += _failures(collection)
    lines += ["## Where the memory went", "", *_memory_table(collection), ""]
    if collection.single:
        lines += _figures(collection.runs[0], out_dir)
    if costs:
        lines += ["## Sharing, preemption and the allocator's own cost", ""]
        lines += [_table(collection, costs), ""]
    lines += ["## Configuration and environment", ""]
    for run in collection.runs:
        lines += _setup(collection, run)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Text that markdown shows as it is."""
    text = " ".join(str(text).split())
    for old, new in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(old, new)
    return re.sub(r"([\\`*_\[\]|#!~])", r"\\\1", text)


def _table(collection: Collection, shown: list[Shown]) -> str:
    names = [*map(escape, collection.headers.values()), "allocator"]
    titles = [f"{metric.title}<br>{metric.unit}" for metric in shown]
    rows = []
    for line in result_lines(collection, shown):
        name = escape(line.name) + ("†" if line.idealised else "")
        if line.row.ok:
            cells = [f"**{c['text']}**" if c["best"] else c["text"] for c in line.cells]
        else:
            cells = [f"*{line.row.status}*", *[""] * (len(shown) - 1)]
        rows.append([*map(escape, line.options), name, *cells])
    return markdown_table([*names, *titles], rows, "l" * len(names) + "r" * len(titles))


def _key(collection: Collection, shown: list[Shown]) -> str:
    lines = list(result_lines(collection, shown))
    within = " within its run" if collection.headers and not collection.one_row_each else ""
    dagger = " †: idealised, it reads the output length beforehand."
    return f"Bold: best of its column{within}." + (
        dagger if any(line.idealised for line in lines) else ""
    )


def _failures(collection: Collection) -> list[str]:
    lines = []
    for run in collection.runs:
        for row in run.rows:
            if not row.ok:
                where = run.label(collection.headers)
                name = f"{where}, {row.allocator}" if where else row.allocator
                reason = row.reason or "no reason given"
                lines.append(f"- {escape(name)}: {row.status}: {escape(reason)}")
    return [*lines, ""] if lines else []


def _memory_table(collection: Collection) -> list[str]:
    prefix, basis = share_basis([row for run in collection.runs for row in run.rows])
    names = [*map(escape, collection.headers.values()), "allocator"]
    categories = shown_categories(row for run in collection.runs for row in run.rows)
    rows = []
    for line in result_lines(collection, []):
        if line.row.ok:
            shares = [line.row.metrics.get(f"{prefix}{c}_share") for c in categories]
            cells = ["–" if share is None else percent(share) for share in shares]
            rows.append([*map(escape, line.options), escape(line.name), *cells])
    align = "l" * len(names) + "r" * len(categories)
    meanings = [f"*{n}*: {text}" for n, _, text in CATEGORY_DEFINITIONS if n in categories]
    return [
        f"Share of the pool, {basis}.",
        "",
        markdown_table([*names, *categories], rows, align),
        "",
        f"{'. '.join(meanings)}.",
    ]


def _figures(run: Run, out_dir: Path) -> list[str]:
    lines = []
    for name in FIGURES:
        path = run.path / "figures" / f"{name}.png"
        if path.exists():
            link = Path(os.path.relpath(path, out_dir)).as_posix()
            lines += [f"![{_ALT[name]}](<{link}>)", ""]
    return lines


def _setup(collection: Collection, run: Run) -> list[str]:
    label = run.label(collection.headers)
    lines = [f"### {escape(label)}", ""] if label else []
    if run.command:
        fence = "`" * max(3, 1 + max((len(m) for m in re.findall("`+", run.command)), default=0))
        lines += [fence, run.command, fence, ""]
    git = run.environment.get("git")
    facts = {
        "times": run.clock,
        "outputs:": outputs_sentence(run.rows),
        "loop:": loop_sentence(run.rows),
        "seed": run.config.get("seed"),
        "commit": git.get("commit") if isinstance(git, dict) else None,
        "python": run.environment.get("python"),
        "processor": run.environment.get("cpu_model"),
    }
    known = [f"{name} {escape(value)}" for name, value in facts.items() if value is not None]
    return [*lines, ", ".join(known), ""] if known else lines
