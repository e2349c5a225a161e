"""Memory maps on the page: time to the right, addresses upwards, a colour a request.

A map is a small PNG with a palette, scaled up by the browser, so that two hundred steps of a pool
take a few kilobytes. A slider shows one step of it as a grid of addresses.
"""

from __future__ import annotations

import base64
import colorsys
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from harness.observers.memory_map import FREE, HELD, SHARED, WRITTEN, MemoryMap, read_maps
from harness.report.numbers import percent, spoken

#: steps that a map shows at most; of more every so many-th is taken
MOST_COLUMNS = 480
HUES = 36
#: pixels a side that a stretch takes in one step
CELL = 2
GOLDEN = 0.618034
#: opacity of what is held and not written
PALE = 72


def memory_maps(run_dir: Path) -> list[dict[str, Any]]:
    """The recorded maps of a run directory, ready for the page; empty where there are none."""
    return [_shown(name, each) for name, each in read_maps(run_dir).items()]


def _shown(name: str, each: MemoryMap) -> dict[str, Any]:
    steps, rows = each.kind.shape
    stride = -(-steps // MOST_COLUMNS)
    kind = each.kind
    text = map_sentence(kind)
    last = each.first_step + steps - 1
    png = indexed_png(map_pixels(each.owner[::stride], kind[::stride]), palette())
    return {
        "name": name,
        "png": base64.b64encode(png).decode(),
        "first": each.first_step,
        "last": last,
        "stride": stride,
        "columns": -(-steps // stride),
        "width": CELL * -(-steps // stride),
        "height": CELL * rows,
        "slots": round(each.capacity_tokens / rows),
        "capacity": f"{each.capacity_tokens:,}",
        "text": text,
        "alt": f"{name}: physical memory from step {each.first_step} to {last}. {text}",
    }


def map_sentence(kind: np.ndarray) -> str:
    """How much of what is held is written, and where the holes are; `kind` is [steps, stretches].

    A hole is a run of free stretches; what lies outside the largest can serve small requests alone.
    """
    held, written = (kind != FREE).sum(), np.isin(kind, (WRITTEN, SHARED)).sum()
    if not held:
        return "Nothing is held."
    shared = (kind == SHARED).sum()
    said = f"Of what is held {percent(written / held)} is written"
    said += f" and {percent(shared / held)} shared." if shared else "."
    holes = [_hole_lengths(step == FREE) for step in kind]
    holes = [lengths for lengths in holes if len(lengths)]
    if not holes:
        return f"{said} No stretch is free."
    largest = sum(lengths.max() for lengths in holes) / sum(lengths.sum() for lengths in holes)
    count = spoken(sum(map(len, holes)) / len(kind))
    return (
        f"{said} {percent(float((kind == FREE).mean()))} is free, in {count} "
        f"hole{'s' * (count != '1')} on average; "
        f"{percent(float(largest))} of it lies in the largest."
    )


def _hole_lengths(free: np.ndarray) -> np.ndarray:
    """The lengths of the runs of True in [stretches]."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], free.astype(np.int8), [0]))))
    return edges[1::2] - edges[::2]


def map_pixels(owner: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """[CELL rows, CELL steps] indices of `palette`; address 0 at the foot, shared ones dotted."""
    hue = (owner.astype(np.int64) - 1) % HUES
    pixels = np.where(kind == HELD, 2 + HUES + hue, 2 + hue)
    pixels[kind == 0] = 0
    fine = pixels.T[::-1].repeat(CELL, axis=0).repeat(CELL, axis=1)
    # One corner of each cell that is shared, which is a hatching where many are.
    fine[::CELL, ::CELL][(kind == SHARED).T[::-1]] = 1
    return fine.astype(np.uint8)


def palette() -> np.ndarray:
    """[2 + 2 HUES, 4] RGBA: nothing, the hatching, then the hues at full and at low opacity."""
    colours = []
    for index in range(HUES):
        # Steps of the golden ratio keep requests that follow each other apart.
        lightness = (0.42, 0.56, 0.68)[index % 3]
        rgb = colorsys.hls_to_rgb(index * GOLDEN % 1.0, lightness, 0.62)
        colours.append([round(255 * part) for part in rgb])
    full = np.array(colours)
    opaque, pale = np.full((HUES, 1), 255), np.full((HUES, 1), PALE)
    special = [[0, 0, 0, 0], [24, 24, 28, 255]]
    return np.vstack([special, np.hstack([full, opaque]), np.hstack([full, pale])]).astype(np.uint8)


def indexed_png(pixels: np.ndarray, colours: np.ndarray) -> bytes:
    """A PNG of palette indices [height, width] with `colours` [n, 4] RGBA."""
    height, width = pixels.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # each starts with its filter, none
    lines[:, 1:] = pixels
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours[:, :3].tobytes()),
        (b"tRNS", colours[:, 3].tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
