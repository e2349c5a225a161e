"""Puts a report together and writes it: `report.html` and `report.md`."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.report import sections
from harness.report.figures.theme import CATEGORY_COLOURS, allocator_colour, allocator_dashes
from harness.report.load import Collection, ReportError, Run, load_collection
from harness.report.markdown import render_markdown
from harness.report.svg import dash_array
from harness.report.verdict import verdicts
from harness.results.atomic import write_text
from harness.results.metrics import CATEGORY_DEFINITIONS
from harness.results.outputs import outputs_sentence

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
    """What was served, by which model on which hardware, as far as all runs agree."""
    workload, model = _common(collection, "workload", "name"), _common(collection, "model", "name")
    machines = {run.machine for run in collection.runs}
    where = " on ".join(
        part for part in (model, machines.pop() if len(machines) == 1 else None) if part
    )
    return ", ".join(part for part in (workload, where) if part) or "KV-cache allocators"


def _common(collection: Collection, section: str, name: str) -> str | None:
    found = set()
    for run in collection.runs:
        part = run.config.get(section)
        if isinstance(part, dict) and part.get(name) is not None:
            found.add(str(part[name]))
    return found.pop() if len(found) == 1 else None


def render_html(collection: Collection, title: str) -> str:
    """The page. The columns of the first runs are shown, as many as its size allows."""
    detailed = collection.runs[: sections.DETAILED_RUNS]
    while True:
        text = _render(collection, title, detailed)
        if len(text.encode()) <= MOST_BYTES or not detailed:
            return text
        detailed = detailed[: len(detailed) // 2]


def _render(collection: Collection, title: str, detailed: Sequence[Run]) -> str:
    from importlib.resources import files

    import jinja2

    folder = files("harness.report") / "page"
    script = (folder / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
    )
    environment.globals.update(colour=allocator_colour, dash=_dash)
    # Strings made by our own drawing code, which escapes every text it is given.
    environment.filters["markup"] = _markup
    return environment.get_template("report.html.j2").render(
        title=title,
        css=(folder / "page.css").read_text(encoding="utf-8") + _category_css(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        verdicts=[_emphasised(text, collection) for text in verdicts(collection)],
        collection=collection,
        headers=list(collection.headers.values()),
        columns=sections.main_columns(collection),
        lines=sections.result_lines(collection, sections.main_columns(collection)),
        costs=sections.cost_columns(collection),
        cost_lines=sections.result_lines(collection, sections.cost_columns(collection)),
        waste=sections.waste_bars(collection),
        categories=CATEGORY_DEFINITIONS,
        details=_details(collection, detailed),
        left_out=len(collection.runs) - len(detailed),
        all_metrics=[sections.all_metrics(collection, run) for run in _distinct(collection)],
        curves=sections.curve_charts(collection),
        knobs=sections.knob_charts(collection),
        setups=[_setup(collection, run) for run in _distinct(collection)],
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


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


def _dash(allocator: str) -> str:
    return dash_array(allocator_dashes(allocator))


def _category_css() -> str:
    return "".join(f".k-{name}{{--c:{colour}}}" for name, colour in CATEGORY_COLOURS.items())


def _details(collection: Collection, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What is drawn of each run, or of all together where each has but one row."""
    if collection.one_row_each:
        return [
            {
                "label": "",
                "bars": sections.throughput_bars(collection, collection.runs),
                "memory": sections.memory_panels(collection, runs),
                "latency": [],
                "maps": [],
            }
        ]
    return [_detail(collection, run) for run in runs]


def _detail(collection: Collection, run: Run) -> dict[str, Any]:
    from harness.report.memory_map import memory_maps

    return {
        "label": run.label(collection.headers),
        "bars": sections.throughput_bars(collection, [run]),
        "memory": sections.memory_panels(collection, [run]),
        "latency": sections.latency_charts(run),
        "maps": memory_maps(run.path),
    }


def _distinct(collection: Collection) -> list[Run]:
    """Runs to print the configuration of: all of a few, or the first of many."""
    return collection.runs[: sections.DETAILED_RUNS]


def _setup(collection: Collection, run: Run) -> dict[str, Any]:
    import yaml

    git = run.environment.get("git")
    git = git if isinstance(git, dict) else {}
    packages = run.environment.get("packages")
    gpu = run.environment.get("gpu")
    facts = {
        "times": run.clock,
        "outputs": outputs_sentence(run.rows),
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
