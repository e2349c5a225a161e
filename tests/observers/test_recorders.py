"""Memory maps and traces of real runs, and that asking for them changes no result."""

import json

import numpy as np
import pytest

from harness.observers.chrome_trace import TRACE
from harness.observers.memory_map import FREE, HELD, SHARED, STRETCHES, WRITTEN, read_maps
from harness.report.memory_map import indexed_png, map_pixels, palette
from tests.inprocess import run_harness

SMALL = ["+workload=beam", "workload.num_requests=12", "kv_tokens=9000", "engine.max_len=1024"]
RECORD = ["harness.memory_map=5:60", "harness.trace=chrome"]


def run(cwd, folder, *options):
    return run_harness(*SMALL, *options, f"hydra.run.dir={folder}", cwd=cwd)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("runs")
    for folder, options in (("plain", ["report=none"]), ("recorded", RECORD)):
        done = run(cwd, folder, *options)
        assert done.returncode == 0, done.stderr
    return cwd


def test_recording_changes_no_result(runs):
    found = []
    for folder in ("plain", "recorded"):
        rows = json.loads((runs / folder / "summary.json").read_text())["rows"]
        for row in rows:
            del row["metrics"]["allocator_us_per_step"]
        found.append(rows)
    assert found[0] == found[1]
    assert not (runs / "plain" / "report.html").exists()
    assert "Memory map" in (runs / "recorded" / "report.html").read_text()


def test_maps_show_what_the_policies_do(runs):
    maps = read_maps(runs / "recorded")
    assert set(maps) == {
        "contiguous_max", "contiguous_pow2", "contiguous_oracle", "paged", "virtual",
    }  # fmt: skip
    for each in maps.values():
        assert each.first_step == 5
        assert each.owner.shape == each.kind.shape == (55, STRETCHES)
        assert ((each.owner == 0) == (each.kind == FREE)).all()
    share = {n: {k: (m.kind == k).mean() for k in range(4)} for n, m in maps.items()}
    # Candidates of a beam share blocks; contiguous extents never do, and are mostly empty.
    assert share["paged"][SHARED] > 0
    assert share["contiguous_max"][SHARED] == 0
    assert share["contiguous_max"][HELD] > 5 * share["contiguous_max"][WRITTEN]
    assert share["paged"][HELD] < 0.1


def test_the_trace_is_what_perfetto_reads(runs):
    trace = json.loads((runs / "recorded" / TRACE).read_text())
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "C", "i"}
    names = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert "paged" in names
    for process in {event["pid"] for event in events}:
        mine = [e for e in events if e["pid"] == process and e["ph"] == "X"]
        ends = [e["ts"] + e["dur"] for e in mine]
        starts = [e["ts"] for e in mine]
        assert starts == sorted(starts)
        assert all(b >= a - 1e-3 for a, b in zip(ends[:-1], starts[1:], strict=True))
        steps = [e["args"]["first_step"] for e in mine]
        assert steps[0] == 0
        assert all(e["args"]["steps"] >= 1 for e in mine)
    rows = json.loads((runs / "recorded" / "summary.json").read_text())["rows"]
    for process, row in enumerate(rows, start=1):
        mine = [e["args"] for e in events if e["pid"] == process and e["ph"] == "X"]
        assert sum(args["copied_bytes"] for args in mine) == row["metrics"]["copied_bytes"]
        assert sum(args["steps"] for args in mine) == row["metrics"]["steps"]
        admitted = [e for e in events if e["pid"] == process and e["name"].startswith("compute")]
        assert len(admitted) == 12 + row["metrics"]["preemptions"]


@pytest.mark.parametrize(
    "option", ["harness.memory_map=7", "harness.memory_map=9:9", "harness.memory_map=0:99999",
               "harness.trace=perf", "report=pdf"],
)  # fmt: skip
def test_a_bad_option_is_one_line_and_writes_nothing(option, tmp_path):
    done = run(tmp_path, "run", option)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert option.partition("=")[0] in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_window_after_the_end_is_noted(tmp_path):
    done = run(tmp_path, "run", "allocator=[paged]", "harness.memory_map=90000:90010")
    assert done.returncode == 0
    assert "paged: the run ended before harness.memory_map began" in done.stderr


def test_pictures_of_maps_keep_their_cells(tmp_path):
    import io

    from PIL import Image

    owner = np.array([[0, 1, 1], [2, 2, 2]], dtype=np.uint32)
    kind = np.array([[FREE, HELD, WRITTEN], [WRITTEN, SHARED, SHARED]], dtype=np.uint8)
    pixels = map_pixels(owner, kind)
    assert pixels.shape == (6, 4)
    image = Image.open(io.BytesIO(indexed_png(pixels, palette()))).convert("RGBA")
    colour = {tuple(rgba) for rgba in palette().tolist()}
    assert {image.getpixel((x, y)) for x in range(4) for y in range(6)} <= colour
    assert image.getpixel((1, 5))[3] == 0, "address 0 of step 0 is free, and at the foot"
    assert 0 < image.getpixel((1, 3))[3] < 255
    assert image.getpixel((1, 1))[3] == 255
