"""Tables of results: on the screen, and between the markers of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.command.tables import markdown_table, text_table
from harness.errors import ConfigError
from harness.published.reference import Figure

_BEGIN, _END = "<!-- published: {} -->", "<!-- end -->"
_PART = re.compile(r"<!-- published: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


def screen(result: Mapping[str, Any]) -> str:
    """Return a result as text."""
    lines = [result["title"], *_commands(result), "", text_table(*_cells(result))]
    return "\n".join([*lines, *_remarks(result)])


def markdown(result: Mapping[str, Any]) -> str:
    """Return a result as the part of a page."""
    lines = [f"`python -m harness +experiment={result['experiment']}`", ""]
    lines += [markdown_table(*_cells(result)), ""]
    lines += [line for remark in _remarks(result) for line in (remark, "")]
    return "\n".join(lines)


def rewritten(page: str, results: Mapping[str, Mapping[str, Any]], where: str) -> str:
    """Return a page whose marked parts show these results.

    Raises `ConfigError` for a result without a place, and for a place without a result.
    """
    places = [match[1] for match in _PART.finditer(page)]
    for name in results:
        if places.count(name) != 1:
            raise ConfigError(
                f"{where}: {places.count(name)} parts for {name}; expected one, from "
                f"{_BEGIN.format(name)!r} to {_END!r}"
            )
    for name in places:
        if name not in results:
            raise ConfigError(f"{where}: a part for {name}, which is no published figure")
    return _PART.sub(
        lambda match: f"{_BEGIN.format(match[1])}\n\n{markdown(results[match[1]])}\n{_END}", page
    )


def _commands(result: Mapping[str, Any]) -> list[str]:
    return [f"  {name}: {options}" for name, options in result["setups"].items()]


def _cells(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]], str]:
    columns = list(result["rows"][0]["ours"]) if result["rows"] else []
    head, align = ["", "published"], "lr"
    for column in columns:
        head += [column, "difference", "verdict"]
        align += "rrl"
    rows = []
    for row in result["rows"]:
        said = row["published"]
        figure = Figure(result["experiment"], row["row"], **said) if said else None
        line = [row["row"], figure.text if figure else "-"]
        for column in columns:
            cell = row["ours"][column]
            verdict = "data absent" if result["absent"] else cell["verdict"]
            line += [_number(cell["value"], figure), cell["difference"] or "-", verdict or "-"]
        rows.append(line)
    return head, rows, align


def _number(value: float | None, figure: Figure | None) -> str:
    if value is None:
        return "-"
    three = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    decimals = figure.decimals if figure is not None else 0
    return three if decimals <= len(three.partition(".")[2]) else f"{value:.{decimals}f}"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    remarks = [f"Not run: {result['absent']}"] if result["absent"] else []
    for column, failures in result["failures"].items():
        remarks += [f"{column}: {failure}" for failure in failures]
    return remarks
