"""A chart as an SVG element of the page: its colours follow the theme, its paths are short."""

from __future__ import annotations

import io
import json
import re
from xml.etree import ElementTree

import numpy as np

from harness.report.charts.chart import Chart, Readout
from harness.report.charts.theme import (
    CATEGORY_COLOURS,
    FAILED,
    FAINT,
    INK,
    MUTED,
    ON_DARK,
    ON_LIGHT,
    PAPER,
)

#: the page's own colours for those of the theme; all others are only lightened in the dark
_PAGE_COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    FAINT: "var(--rule)",
    PAPER: "var(--paper)",
    FAILED: "var(--failed)",
    ON_DARK: "var(--part)",
    ON_LIGHT: ON_LIGHT,
    CATEGORY_COLOURS["idle"]: "var(--hollow)",
}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
#: SVG's user unit as Matplotlib writes it: a point
_UNITS_PER_IN = 72


def inline_svg(chart: Chart, serial: int) -> str:
    """The `<svg>` element; `serial` tells its ids from those of the page's other charts."""
    text = io.StringIO()
    no_date = {"Date": None, "Creator": None, "Format": None, "Type": None}
    chart.figure.savefig(text, format="svg", metadata=no_date, transparent=True)
    # The first lines are a declaration and a document type, which have no place within a page.
    root = ElementTree.fromstring(text.getvalue())
    for element in root.iter():
        _plain_names(element)
    root.remove(root.find("defs"))  # a style sheet, which would hold for all of the page
    used = _references(root)
    for element in root.iter():
        _page_attributes(element, serial, used)
        _add_tips(element, chart.tips)
    _drop_empty(root)
    return _frame(root, chart, serial)


def _frame(root: ElementTree.Element, chart: Chart, serial: int) -> str:
    """The drawing with a title and a description for screen readers, and what the script reads."""
    width, height = (float(root.get("viewBox").split()[i]) for i in (2, 3))
    frame = ElementTree.Element(
        "svg",
        {
            "class": "chart",
            "viewBox": f"0 0 {width:g} {height:g}",
            "style": f"--w:{width / _UNITS_PER_IN:g}in",
            "role": "img",
            # An element `title` would pop up over the values at the pointer.
            "aria-label": chart.title,
            "aria-describedby": f"d{serial}",
        },
    )
    if chart.readout is not None:
        frame.set("data-readout", _readout_json(chart.readout, height))
    ElementTree.SubElement(frame, "desc", {"id": f"d{serial}"}).text = chart.description
    frame.extend(root)
    return ElementTree.tostring(frame, encoding="unicode")


def _plain_names(element: ElementTree.Element) -> None:
    """Names without their name spaces, which HTML knows by itself."""
    element.tag = element.tag.rpartition("}")[2]
    for name in [name for name in element.attrib if "}" in name]:
        element.set(name.rpartition("}")[2], element.attrib.pop(name))
    element.tail = None
    if element.text and not element.text.strip():
        element.text = None


def _references(root: ElementTree.Element) -> set[str]:
    """Ids that something in the drawing points to."""
    found = {element.get("href", "").removeprefix("#") for element in root.iter()}
    for element in root.iter():
        found.update(_REFERENCE.findall(element.get("clip-path", "")))
    return found


def _page_attributes(element: ElementTree.Element, serial: int, used: set[str]) -> None:
    if element.get("id") in used:
        element.set("id", f"{element.get('id')}-{serial}")
    elif not element.get("id", "").startswith("part"):
        element.attrib.pop("id", None)
    if "href" in element.attrib:
        element.set("href", f"{element.get('href')}-{serial}")
    if "clip-path" in element.attrib:
        element.set("clip-path", _REFERENCE.sub(rf"url(#\1-{serial})", element.get("clip-path")))
    if "d" in element.attrib:
        element.set("d", short_path(element.get("d")))
    for name in ("x", "y", "width", "height"):
        if name in element.attrib:
            element.set(name, _short(float(element.get(name).removesuffix("pt"))))
    if "style" in element.attrib:
        style = re.sub(r"#[0-9a-fA-F]{6}", _page_colour, element.get("style"))
        # The page's own font; Matplotlib names the one that it measured with.
        style = re.sub(
            r"(font-family:|font:[^;']*px) *'.*?sans-serif", r"\1 system-ui,sans-serif", style
        )
        element.set("style", style)


def _page_colour(found: re.Match[str]) -> str:
    colour = found.group().upper()
    return _PAGE_COLOURS.get(colour) or f"color-mix(in oklab,{colour},white var(--mix))"


def _add_tips(element: ElementTree.Element, tips: dict[str, list[str]]) -> None:
    texts = tips.get(element.get("id", ""))
    if texts is None:
        return
    del element.attrib["id"]
    parts = list(element.iter("use")) or [element]
    for part, text in zip(parts, texts, strict=True):
        title = ElementTree.Element("title")
        title.text = text
        part.insert(0, title)


def _drop_empty(element: ElementTree.Element) -> None:
    for child in list(element):
        _drop_empty(child)
        if child.tag in ("g", "defs") and not len(child):
            element.remove(child)


def short_path(data: str) -> str:
    """A path of `M`, `L`, `C`, `Q` and `Z` with one decimal, and `H` and `V` where they will do."""
    text: list[str] = []
    x = y = ""
    for command, numbers in re.findall(r"([MLCQZz])([^MLCQZz]*)", data):
        values = [_short(float(number)) for number in numbers.split()]
        if command != "L":
            text.append(command + " ".join(values))
        elif values[0] != x and values[1] != y:
            text.append(f"L{values[0]} {values[1]}")
        elif values[0] != x:
            text.append(f"H{values[0]}")
        elif values[1] != y:
            text.append(f"V{values[1]}")
        if values:
            x, y = values[-2:]
    return "".join(text)


def _short(value: float) -> str:
    return f"{round(value, 1) + 0.0:g}"


def _readout_json(readout: Readout, height: float) -> str:
    """The readout in the coordinates of the drawing, whose y axis points down."""
    per_dot = _UNITS_PER_IN / readout.axes.figure.dpi
    index = "xy".index(readout.along)
    points = np.zeros((len(readout.places), 2))
    points[:, index] = readout.places
    at = readout.axes.transData.transform(points)[:, index] * per_dot
    box = readout.axes.bbox.extents * per_dot
    found = {
        "along": readout.along,
        "at": _rounded(at if index == 0 else height - at),
        "box": _rounded(np.array([box[0], height - box[3], box[2], height - box[1]])),
        "heads": _digits(readout.heads),
        "headUnit": readout.head_unit,
        "lines": {name: _digits(values) for name, values in readout.lines.items()},
        "unit": readout.unit,
    }
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values, 1).tolist()


def _digits(values: np.ndarray) -> list[float | int]:
    """Three significant digits."""
    rounded = [float(f"{value:.3g}") for value in values.tolist()]
    return [int(value) if value.is_integer() else value for value in rounded]
