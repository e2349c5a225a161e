"""Puts a report together and writes it: `report.html` and `report.md`."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report import sections
from harness.report.caveats import caveats
from harness.report.charts.chart import shown_categories
from harness.report.charts.theme import CATEGORY_COLOURS, themed
from harness.report.collection import Collection, Run
from harness.report.load import ReportError, load_collection
from harness.report.markdown import render_markdown
from harness.report.panels import DETAILED_RUNS, Panels
from harness.report.verdict import verdicts
from harness.results.atomic import write_text
from harness.results.metrics import CATEGORY_DEFINITIONS
from harness.results.outputs import loop_sentence, outputs_sentence

if TYPE_CHECKING:
    import jinja2

REPORT_HTML, REPORT_MD = "report.html", "report.md"
#: pages grow with the number of runs; beyond this their large columns are left out
MOST_BYTES = 1_900_000


def write_report(
    paths: Sequence[str | Path], out_dir: str | Path, title: str | None = None
) -> list[Path]:
    """Write both files into `out_dir` and return their paths; raises ReportError in one line."""
    collection = load_collection(paths)
    out_dir = Path(out_dir)
    title = title or default_title(collection)
    texts = {
        REPORT_MD: render_markdown(collection, title, out_dir),
        REPORT_HTML: render_html(collection, title),
    }
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(out_dir / name, text)
    except OSError as error:
        raise ReportError(f"{out_dir}: cannot be written: {error.strerror}") from error
    return [out_dir / name for name in texts]


def default_title(collection: Collection) -> str:
    """What was served, by which model on which hardware and software, as far as all runs agree."""
    workload, model = _common(collection, "workload", "name"), _common(collection, "model", "name")
    machines = {run.machine for run in collection.runs if run.known}
    where = " on ".join(
        part for part in (model, machines.pop() if len(machines) == 1 else None) if part
    )
    software = _common(collection, "software", "name")
    # A real run has its own software, and the default is a name for having chosen none.
    simulated = all(run.clock == "simulated" for run in collection.runs)
    stack = f"software {software}" if simulated and software not in (None, "nominal") else None
    return ", ".join(part for part in (workload, where, stack) if part) or "KV-cache allocators"


def _common(collection: Collection, section: str, name: str) -> str | None:
    found = set()
    for run in collection.runs:
        part = run.config.get(section)
        if isinstance(part, dict) and part.get(name) is not None:
            found.add(str(part[name]))
    return found.pop() if len(found) == 1 else None


def render_html(collection: Collection, title: str) -> str:
    """The page. The columns of the first runs are shown, as many as its size allows."""
    with themed():
        panels = Panels(collection)
        page, details = _page(collection, title, panels), panels.details()
    template = _template()
    while True:
        left_out = len(collection.runs) - len(details)
        text = template.render(**page, details=details, left_out=left_out)
        if len(text.encode()) <= MOST_BYTES or not details:
            return text
        details = details[: len(details) // 2]


def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_page_file),
    )
    # Strings made by `charts.svg`, which escapes every text it is given, and files of our own.
    environment.filters["markup"] = _markup
    return environment.get_template("report.html.j2")


def _page_file(name: str) -> str:
    return (files("harness.report") / "page" / name).read_text(encoding="utf-8")


def _page(collection: Collection, title: str, panels: Panels) -> dict[str, Any]:
    """What fills the page, but for the large columns of its runs."""
    script = _page_file("page.js")
    columns, costs = sections.main_columns(collection), sections.cost_columns(collection)
    shown = collection.runs[:DETAILED_RUNS]
    categories = shown_categories(row for run in collection.runs for row in run.rows)
    basis, waste = panels.waste()
    return {
        "title": title,
        "css": _page_file("page.css") + _category_css(),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "verdicts": [_emphasised(text, collection) for text in verdicts(collection)],
        "caveats": caveats(collection),
        "collection": collection,
        "headers": list(collection.headers.values()),
        "columns": columns,
        "lines": sections.result_lines(collection, columns),
        "costs": costs,
        "cost_lines": sections.result_lines(collection, costs),
        "categories": [line for line in CATEGORY_DEFINITIONS if line[0] in categories],
        "basis": basis,
        "waste": waste,
        "time": panels.time(),
        "throughput": panels.throughput(),
        "curves": panels.curves(),
        "knobs": panels.knobs(),
        "all_metrics": [sections.all_metrics(collection, run) for run in shown],
        "setups": [_setup(collection, run) for run in shown],
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _emphasised(sentence: str, collection: Collection) -> Any:
    """The sentence, escaped, with the names of allocators in bold."""
    from markupsafe import Markup, escape

    names = sorted({row.allocator for run in collection.runs for row in run.rows}, key=len)
    pattern = "|".join(re.escape(name) for name in reversed(names) if name)
    if not pattern:
        return escape(sentence)
    # Every other piece is a name; a name within a longer word is none.
    pieces = re.split(rf"(?<!\w)({pattern})(?!\w)", sentence)
    marked = [Markup("<b>{}</b>").format(p) if i % 2 else escape(p) for i, p in enumerate(pieces)]
    return Markup("").join(marked)


def _category_css() -> str:
    return "".join(f".k-{name}{{--c:{colour}}}" for name, colour in CATEGORY_COLOURS.items())


def _setup(collection: Collection, run: Run) -> dict[str, Any]:
    import yaml

    git = run.environment.get("git")
    git = git if isinstance(git, dict) else {}
    packages = run.environment.get("packages")
    gpu = run.environment.get("gpu")
    facts = {
        "times": run.clock,
        "outputs": outputs_sentence(run.rows),
        "loop": loop_sentence(run.rows),
        "seed": run.config.get("seed"),
        "commit": git.get("commit") and str(git["commit"]) + " (modified)" * bool(git.get("dirty")),
        "requests": run.config.get("num_requests"),
        "python": run.environment.get("python"),
        "processor": run.environment.get("cpu_model"),
        "cores": run.environment.get("cpu_cores_usable"),
        "GPU": gpu.get("name") if isinstance(gpu, dict) else None,
        "system": run.environment.get("system"),
    }
    if isinstance(packages, dict):
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        facts["packages"] = versions
    notes = run.config.get("notes")
    return {
        "label": run.label(collection.headers) or run.name,
        "command": run.command,
        "facts": {name: value for name, value in facts.items() if value not in (None, "")},
        "notes": notes if isinstance(notes, list) else [],
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=90),
    }
