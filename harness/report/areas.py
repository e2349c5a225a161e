"""Memory over time: a stacked area of the categories, one panel an allocator."""

from __future__ import annotations

from harness.report.columns import Memory
from harness.report.numbers import number, percent
from harness.report.svg import Drawing, Scale
from harness.results.runlog import CATEGORIES

WIDTH, HEIGHT = 350.0, 165.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 20.0, 34.0
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes"))


def memory_chart(name: str, memory: Memory, end_s: float) -> str:
    """An SVG of where the pool's bytes were; `end_s` is the end of the longest run beside it."""
    unit_bytes, unit = next(pair for pair in _UNITS if memory.capacity_bytes >= pair[0])
    x_scale = Scale(0.0, end_s or 1.0, LEFT, WIDTH - RIGHT)
    y_scale = Scale(0.0, float(memory.capacity_bytes), HEIGHT - BOTTOM, TOP)
    means = memory.category_bytes.mean(axis=1) / memory.capacity_bytes
    listed = ", ".join(f"{c} {percent(s)}" for c, s in zip(CATEGORIES, means, strict=True) if s)
    drawing = Drawing(WIDTH, HEIGHT, f"Memory over time: {name}", f"Mean over the run: {listed}.")
    floor = [0.0] * (len(memory.edges_s) - 1)
    for category, levels in zip(CATEGORIES, memory.category_bytes, strict=True):
        top = [low + level for low, level in zip(floor, levels.tolist(), strict=True)]
        if max(levels) > 0.002 * memory.capacity_bytes:
            upper = _stairs(memory, top, x_scale, y_scale)
            lower = _stairs(memory, floor, x_scale, y_scale)
            drawing.area([*upper, *reversed(lower)], f"k-{category}")
        floor = top
    for tick in Scale(0.0, memory.capacity_bytes / unit_bytes, 0, 1).ticks(3):
        y = y_scale(tick * unit_bytes)
        drawing.text(LEFT - 6, y + 4, f"{tick:g}", anchor="end")
        drawing.line(LEFT - 4, y, LEFT, y, "axis")
    drawing.text(2, TOP - 9, unit, "label")
    for tick in x_scale.ticks(5):
        drawing.line(x_scale(tick), HEIGHT - BOTTOM, x_scale(tick), HEIGHT - BOTTOM + 4, "axis")
        drawing.text(x_scale(tick), HEIGHT - BOTTOM + 16, f"{tick:g}", anchor="middle")
    drawing.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
    drawing.text((LEFT + WIDTH) / 2, HEIGHT - 4, "time (s)", "label", "middle")
    if memory.end_s < 0.75 * end_s:
        text = f"done at {number(memory.end_s)} s"
        drawing.text(x_scale(memory.end_s) + 6, (TOP + HEIGHT - BOTTOM) / 2, text, "label")
    return drawing.markup()


def _stairs(
    memory: Memory, levels: list[float], x_scale: Scale, y_scale: Scale
) -> list[tuple[float, float]]:
    edges = memory.edges_s.tolist()
    points = []
    for start, end, level in zip(edges[:-1], edges[1:], levels, strict=True):
        y = y_scale(level)
        points += [(x_scale(start), y), (x_scale(end), y)]
    return points
