"""The page: a paragraph to be pasted, the settings, flags, evidence, what would change it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files

from harness.advise import output, words
from harness.advise.advice import Advice


def page(advice: Advice, arguments: Sequence[str]) -> str:
    """Return the text of `advice.html`, in one file."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["markup"] = Markup
    template = (files("harness.advise") / "page.html.j2").read_text(encoding="utf-8")
    css = (files("harness.report") / "page" / "page.css").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=words.title(advice),
        css=css,
        paragraph=words.paragraph(advice),
        how=output.how(advice),
        tables=output.tables(advice),
        servers=words.server_lines(advice),
        legend=output.legend(advice),
        not_asked=advice.not_asked,
        command=shlex.join(["python", "-m", "harness.advise", *arguments]),
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
    )
