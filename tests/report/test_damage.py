"""What is damaged, missing or no run at all: one line, or a report of what there is."""

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.report.__main__ import main
from harness.report.build import write_report
from harness.results.writer import REQUESTS, SUMMARY, TIMELINE
from tests.report.runs import write


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run whose report draws all."""
    run = write(tmp_path_factory.mktemp("whole") / "run", {"paged": 1.0, "virtual": 0.5})
    assert "Memory over time" in page_of(run)
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def page_of(run):
    write_report([run], run)
    return (run / "report.html").read_text()


def truncate(run):
    data = (run / TIMELINE).read_bytes()
    (run / TIMELINE).write_bytes(data[: len(data) // 2])


def flip_bytes(run):
    data = bytearray((run / TIMELINE).read_bytes())
    data[100:400] = bytes(300)
    (run / TIMELINE).write_bytes(bytes(data))


def swap(run):
    (run / TIMELINE).rename(run / "kept")
    (run / REQUESTS).rename(run / TIMELINE)
    (run / "kept").rename(run / REQUESTS)


def text_for_numbers(run):
    table = pq.read_table(run / TIMELINE)
    at = table.schema.get_field_index("time_s")
    pq.write_table(table.set_column(at, "time_s", pa.array(["soon"] * len(table))), run / TIMELINE)


def no_values(run):
    table = pq.read_table(run / TIMELINE)
    at = table.schema.get_field_index("time_s")
    nulls = pa.nulls(len(table), pa.float64())
    pq.write_table(table.set_column(at, "time_s", nulls), run / TIMELINE)


def impossible(column, value):
    """A damage: `value` all over a column, in row groups as they were."""

    def damage(run):
        table = pq.read_table(run / TIMELINE)
        at = table.schema.get_field_index(column)
        values = pa.array([value] * len(table), table.schema.field(column).type)
        whole = table.set_column(at, column, values)
        pq.write_table(whole, run / TIMELINE, row_group_size=len(table) // 2)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, f"{TIMELINE}: damaged"),
        (flip_bytes, f"{TIMELINE}: damaged"),
        (swap, f"{TIMELINE}: has not the columns of this file"),
        (text_for_numbers, f"{TIMELINE}: damaged"),
        (no_values, f"{TIMELINE}: damaged: time_s has values that are missing"),
        (lambda run: (run / TIMELINE).unlink(), f"{TIMELINE}: no such file"),
        *(
            (impossible(*at), f"{TIMELINE}: damaged: times or bytes of paged")
            for at in (
                *(("time_s", value) for value in (float("nan"), float("inf"), -1.0, 0.0)),
                ("idle_bytes", -(1 << 40)),
            )
        ),
    ],
    ids=[
        *("truncated", "flipped", "swapped", "text", "nulls", "missing"),
        *("nan", "inf", "negative time", "no time", "negative bytes"),
    ],
)
def test_damaged_columns_leave_out_their_charts_and_say_so(damage, words, run):
    damage(run)
    page = page_of(run)
    assert f"Left out: {words}" in page
    assert "Memory over time" not in page
    assert "Take <b>paged</b>" in page


def test_columns_of_another_run_are_not_drawn(run, tmp_path):
    from harness.results import ResultRow
    from harness.results.summary import summarize
    from tests.report.runs import ENVIRONMENT, config, log
    from tests.results.directories import write_run

    short = log("paged", steps=7)
    other = tmp_path / "other"
    write_run(other, config(), ENVIRONMENT, [ResultRow("paged", metrics=summarize(short))], [short])
    shutil.copy(other / TIMELINE, run / TIMELINE)
    page = page_of(run)
    assert "paged has 7 steps there and 40 in the summary: it is of another run" in page
    assert "Memory over time" not in page


def test_a_killed_run_names_what_did_not_run(run):
    summary = json.loads((run / SUMMARY).read_text())
    summary["config"]["allocators"] = {name: {} for name in ("paged", "virtual", "contiguous_max")}
    (run / SUMMARY).write_text(json.dumps(summary))
    (run / TIMELINE).unlink()
    (run / REQUESTS).unlink()
    page = page_of(run)
    assert 'data-v="contiguous_max"' in page
    assert "did not end: the run was killed before" in page


@pytest.mark.parametrize("depth", [1, 3])
def test_a_folder_that_is_no_run_is_refused_at_once(depth, tmp_path, capsys, monkeypatch):
    for name in range(300):
        folder = tmp_path.joinpath(str(name), *map(str, range(depth)))
        folder.mkdir(parents=True)
        (folder / "a.txt").touch()
    scandir, looked = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda folder: looked.append(folder) or scandir(folder))
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    looked = [folder for folder in looked if str(folder).startswith(str(tmp_path))]
    assert len(looked) == 1 + 300, "nothing is looked at below the level that has too many"
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "neither a run nor a sweep: more than 500 folders" in error


def test_a_sweep_may_have_jobs_in_folders_of_folders(tmp_path):
    write(tmp_path / "s" / "a" / "b" / "c", {"paged": 1.0}, overrides=["seed=1"])
    write(tmp_path / "s" / "a" / "b" / "d", {"paged": 0.5}, overrides=["seed=2"])
    write_report([tmp_path / "s"], tmp_path / "s")
    assert "seed 1" in (tmp_path / "s" / "report.html").read_text()
