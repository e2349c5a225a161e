"""The files of a report: what is in them, and that nothing gets out of its place."""

import html.parser
import json
import re

import pytest

from harness.observers.memory_map import MapRecorder, MemoryMap, read_maps, write_maps
from harness.report import build, panels
from harness.report.__main__ import main
from harness.report.build import MOST_BYTES, write_report
from harness.report.charts.theme import allocator_colour
from tests.report.runs import EVIL, sweep, write

SPEEDS = {"contiguous_max": 0.3, "contiguous_oracle": 0.9, "paged": 1.0}


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = [], [], []
        self.open = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    return reader


def written(path):
    failed = [("virtual", "oom", f"{EVIL} can never fit")]
    return write(path / "run", SPEEDS, failed=failed, overrides=["+workload=beam", "seed=0"])


@pytest.fixture
def run(tmp_path):
    return written(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run whose report is written, to be read alone."""
    run = written(tmp_path_factory.mktemp("reported"))
    write_report([run], run)
    return run


def test_one_run_gives_both_files(run, capsys):
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.split() == [str(run / "report.md"), str(run / "report.html")]
    text = (run / "report.html").read_text()
    for words in (
        "Take <b>paged</b>", "python -m harness +workload=beam seed=0", "0123456789abcdef",
        "Where the memory went", "Throughput and latency", "What the knobs do", "numpy 2.4.6",
    ):  # fmt: skip
        assert words in text
    assert (
        "*reserved*: held by a running sequence, and used by it later."
        in (run / "report.md").read_text()
    )
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Results", "Where the memory went", "Where the time went", "Throughput and latency",
        "What the knobs do",
        "Sharing, preemption and the allocator's own cost", "Every metric",
        "Configuration, environment, how to reproduce",
    ]  # fmt: skip


def test_the_page_needs_nothing_else(reported):
    reader = read(reported / "report.html")
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    text = (reported / "report.html").read_text()
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\((?!#)", text)
    assert len(text.encode()) < 2_000_000


def test_text_of_traces_and_options_is_escaped(tmp_path):
    name = f"paged{EVIL}"
    run = write(
        tmp_path / "run", {name: 1.0, "other": 0.5}, failed=[("bad", "error", EVIL)],
        workload=EVIL, overrides=[f"+workload={EVIL}"],
    )  # fmt: skip
    write_report([run], run, title=EVIL)
    text = (run / "report.html").read_text()
    assert "<script>alert" not in text
    assert "{{7*7}}" in text
    reader = read(run / "report.html")
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert not any(key.startswith("on") for _, attributes in reader.tags for key in attributes)
    markdown = (run / "report.md").read_text()
    outside = re.sub(r"(?ms)^```.*?^```", "", markdown)
    assert "<script>" not in outside
    # A table's cells stay in their columns whatever they hold.
    tables = re.findall(r"(?m)(?:^\|.*\n)+", outside)
    assert len(tables) > 1
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_best_values_are_marked_and_failures_say_why(reported):
    text = (reported / "report.html").read_text()
    rows = re.findall(r"<tr class=.*?</tr>", text, re.S)
    paged = next(row for row in rows if 'data-v="paged"' in row)
    assert "number best" in paged
    failed = next(row for row in rows if 'data-v="virtual"' in row)
    assert "<b>oom</b>" in failed
    assert "can never fit" in failed
    markdown = (reported / "report.md").read_text()
    assert re.search(r"^\| paged +\| +\*\*", markdown, re.M)
    assert "*oom*" in markdown
    assert "contiguous\\_oracle†" in markdown


def test_every_chart_has_a_title_and_a_description(reported):
    text = (reported / "report.html").read_text()
    charts = re.findall(r'<svg class="chart".*?</svg>', text, re.S)
    assert len(charts) >= 5
    for chart in charts:
        assert re.search(r'aria-label="[^"]+"', chart)
        assert re.search(r'aria-describedby="(d\d+)"[^>]*><desc id="\1">[^<]+</desc>', chart)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for label in re.findall(r'role="img" aria-label="([^"]*)"', text):
        assert label.strip()


def test_an_allocator_keeps_its_colour(reported, tmp_path):
    option = "allocators.paged.block_size"
    other = sweep(tmp_path / "s", option, [8, 64], lambda size: {"paged": 8 / size})
    write_report([other], other)
    for path in (reported, other):
        assert f"--c:{allocator_colour('paged')}" in (path / "report.html").read_text()


def test_a_sweep_draws_its_knob_and_a_rate_its_curve(tmp_path):
    option = "allocators.paged.block_size"
    knob = sweep(tmp_path / "k", option, [8, 16, 64], lambda size: {"paged": 8 / size})
    write_report([knob], knob)
    assert "Throughput by block_size" in (knob / "report.html").read_text()
    rate = sweep(tmp_path / "r", "workload.rate", [1, 2], lambda r: {"paged": 1, "virtual": 1 / r})
    write_report([rate], rate)
    assert "Latency by offered load" in (rate / "report.html").read_text()


def test_a_failed_job_of_a_sweep_is_a_row(tmp_path):
    path = sweep(tmp_path / "s", "seed", [1, 2], lambda seed: {"paged": seed})
    (path / "1" / "summary.json").write_text("{")
    write_report([path], path)
    assert "truncated or not JSON" in (path / "report.html").read_text()


def test_columns_may_be_missing_or_damaged(run):
    (run / "timeline.parquet").write_bytes(b"PAR1")
    (run / "requests.parquet").unlink()
    write_report([run], run)
    assert "Take <b>paged</b>" in (run / "report.html").read_text()


def test_columns_of_the_last_runs_are_left_out_where_a_page_is_too_large(tmp_path, monkeypatch):
    path = sweep(tmp_path / "s", "workload.rate", [1, 2, 3], lambda rate: {"paged": 1})
    page = path / "report.html"
    write_report([path], path)
    whole = page.stat().st_size
    monkeypatch.setattr(build, "MOST_BYTES", whole - 1)
    write_report([path], path)
    assert page.stat().st_size < whole


@pytest.mark.further
def test_a_large_collection_stays_small(tmp_path):
    names = {f"allocator_{i}": 1 + i / 20 for i in range(12)}
    path = sweep(tmp_path / "s", "workload.rate", list(range(1, 9)), lambda rate: names)
    write_report([path], path)
    assert (path / "report.html").stat().st_size <= MOST_BYTES


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2
    run = write(tmp_path / "run", SPEEDS)
    (tmp_path / "file").write_text("")
    assert main([str(run), "--out", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_memory_maps_are_shown_and_damaged_ones_left_out(run):
    import numpy as np

    owner = np.arange(12, dtype=np.uint32).reshape(3, 4)
    kind = np.array([[0, 1, 2, 3]] * 3, dtype=np.uint8)
    write_maps(run, {"paged": MemoryMap(10, 400, owner, kind)})
    write_report([run], run)
    text = (run / "report.html").read_text()
    assert "paged: physical memory from step 10 to 12" in text
    content = (run / "memory_map.npz").read_bytes()
    (run / "memory_map.npz").write_bytes(content[: len(content) // 2])
    assert read_maps(run) == {}
    write_report([run], run)
    assert MapRecorder(0, 5).map() is None


def test_a_commit_that_is_a_number_is_printed(run):
    summary = json.loads((run / "summary.json").read_text())
    summary["environment"]["git"]["commit"] = 5
    (run / "summary.json").write_text(json.dumps(summary))
    write_report([run], run)
    assert "5 (modified)" in (run / "report.html").read_text()


def test_bars_of_many_runs_are_bounded_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(panels, "MOST_BAR_CHARTS", 2)
    speeds = {"paged": 1.0, "virtual": 0.5}
    path = sweep(tmp_path / "s", "workload.rate", [1, 2, 4], lambda rate: speeds)
    write_report([path], path)
    text = (path / "report.html").read_text()
    assert "The first 2 of 3 runs" in text
    assert text.count('aria-label="Where the KV memory went"') == 2
