"""The page: the answer in a sentence, the table, the figure and the command, in one file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files

from harness.capacity import output
from harness.capacity.answer import Row
from harness.capacity.figure import colour_of
from harness.capacity.options import Asked
from harness.report.charts.chart import Chart
from harness.report.charts.svg import inline_svg


def page(
    title: str, rows: Sequence[Row], asked: Asked, chart: Chart, arguments: Sequence[str]
) -> str:
    """Return the text of `capacity.html`; made within `themed()`, as the chart is."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    # A drawing by `charts.svg`, which escapes every text it is given, and a file of our own.
    environment.filters["markup"] = Markup
    template = (files("harness.capacity") / "page.html.j2").read_text(encoding="utf-8")
    css = (files("harness.report") / "page" / "page.css").read_text(encoding="utf-8")
    held = [row for row in rows if row.rate is not None]
    return environment.from_string(template).render(
        title=title,
        css=css,
        verdict=output.best_sentence(rows),
        how=output.headline(rows, asked),
        columns=output.columns(held, asked),
        held=held,
        refused=[row for row in rows if row.rate is None],
        names=[output.name(row) for row in held],
        legend=output.legend(held),
        colours=[colour_of(row) for row in held],
        svg=inline_svg(chart, 1),
        command=shlex.join(["python", "-m", "harness.capacity", *arguments]),
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
