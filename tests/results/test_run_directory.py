"""Run directories: written atomically, repeatable to the byte, and read back or refused clearly."""

import json
import os
from importlib import metadata

import pytest

from harness.results import (
    TIMELINE_COLUMNS,
    ResultRow,
    ResultsError,
    RunWriter,
    describe_environment,
    load_summary,
    summary_rows,
)
from harness.results.atomic import replacing, write_text
from harness.results.environment import git_state, package_versions
from harness.results.summary import summarize
from tests.results.directories import write_run
from tests.results.logs import make_log


def write_example(run_dir, seed=0):
    logs = [make_log("paged", seed=seed), make_log("virtual", seed=seed + 1)]
    rows = [ResultRow(log.allocator, metrics=summarize(log)) for log in logs]
    rows.insert(1, ResultRow("contiguous_max", "oom", "request r3 needs 9 slots of 8"))
    write_run(run_dir, {"seed": seed, "rate": float("inf")}, {"python": "3"}, rows, logs)
    return rows, logs


def test_a_run_comes_back_as_it_was_written(tmp_path):
    rows, logs = write_example(tmp_path / "run")
    summary = load_summary(tmp_path / "run")
    assert summary["schema_version"] == 1
    assert summary["config"] == {"seed": 0, "rate": "inf"}
    assert summary_rows(summary) == rows

    import pandas as pd

    timeline = pd.read_parquet(tmp_path / "run" / "timeline.parquet")
    assert list(timeline.columns) == ["allocator", *TIMELINE_COLUMNS]
    paged = timeline[timeline.allocator == "paged"]
    assert paged["token_bytes"].tolist() == logs[0].timeline["token_bytes"].tolist()
    requests = pd.read_parquet(tmp_path / "run" / "requests.parquet")
    assert requests["id"].tolist() == [*logs[0].requests["id"], *logs[1].requests["id"]]
    assert sorted(os.listdir(tmp_path / "run")) == [
        "requests.parquet",
        "summary.json",
        "timeline.parquet",
    ]


def test_a_row_keeps_what_memory_held_between_the_steps(tmp_path):
    _, logs = write_example(tmp_path)
    summary = load_summary(tmp_path)
    totals = {row["allocator"]: row["totals"] for row in summary["rows"]}
    assert totals["contiguous_max"] == {}
    for log in logs:
        kept = {name: log.totals[name] for name in ("gap_s", "gap_cached_byte_s")}
        assert totals[log.allocator] == kept
    # Files from before they were kept are read as well.
    path = tmp_path / "summary.json"
    for row in summary["rows"]:
        del row["totals"]
    path.write_text(json.dumps(summary))
    assert [row["totals"] for row in load_summary(path)["rows"]] == [{}, {}, {}]
    summary["rows"][0]["totals"] = {"gap_s": "long"}
    path.write_text(json.dumps(summary))
    with pytest.raises(ResultsError, match="total gap_s is not a number"):
        load_summary(path)


def test_one_seed_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_example(tmp_path / name)
    for file in ("summary.json", "timeline.parquet", "requests.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_interrupted_run_keeps_the_variants_it_finished(tmp_path):
    log = make_log()

    def interrupted_run():
        with RunWriter(tmp_path, {}, {}) as writer:
            writer.add(ResultRow("paged", metrics=summarize(log)), log)
            # Already valid here, before anything is closed.
            assert len(load_summary(tmp_path)["rows"]) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    import pyarrow.parquet as pq

    assert len(load_summary(tmp_path)["rows"]) == 1
    assert pq.read_table(tmp_path / "timeline.parquet").num_rows == log.steps
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_run_without_rows_leaves_nothing(tmp_path):
    with RunWriter(tmp_path / "run", {}, {}):
        pass
    assert not (tmp_path / "run").exists()


def test_columns_exist_even_when_every_variant_failed(tmp_path):
    import pyarrow.parquet as pq

    write_run(tmp_path, {}, {}, [ResultRow("paged", "oom", "too small")])
    assert pq.read_table(tmp_path / "timeline.parquet").num_rows == 0


def test_a_crash_midway_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def fail(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_an_exception_while_writing_keeps_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def interrupted_write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["summary.json"]


def test_failing_to_write_is_one_clear_line(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path, {}, {})
    log = make_log()
    writer.add(ResultRow("paged", metrics=summarize(log)), log)
    before = (tmp_path / "summary.json").read_bytes()

    def fail(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResultsError, match="disk full"):
        writer.add(ResultRow("virtual", "error", "x"))
    with pytest.raises(ResultsError, match="disk full"):
        writer.finish()
    assert (tmp_path / "summary.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["summary.json"]


VALID = {"schema_version": 1, "config": {}, "environment": {}, "rows": []}
ROW = {"allocator": "paged", "status": "ok", "reason": None, "metrics": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(VALID)[:-9], "truncated or not JSON"),
        ("", "truncated or not JSON"),
        ("\udcff".encode("utf-8", "surrogateescape"), "truncated or not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1, 2]", "not a kv-harness summary"),
        ('{"rows": []}', "not a kv-harness summary"),
        (json.dumps({**VALID, "schema_version": True}), "not a kv-harness summary"),
        (json.dumps({**VALID, "schema_version": 2}), "newer than 1"),
        (json.dumps({**VALID, "schema_version": 0}), "older than 1"),
        (json.dumps({**VALID, "rows": {}}), "rows is missing or not a list"),
        (json.dumps({**VALID, "rows": [3]}), r"rows\[0\]: not a row"),
        (json.dumps({**VALID, "rows": [{**ROW, "status": "fine"}]}), "status 'fine'"),
        (json.dumps({**VALID, "rows": [{**ROW, "reason": 3}]}), "reason is not text"),
        (json.dumps({**VALID, "rows": [{**ROW, "metrics": None}]}), "metrics is missing"),
        (json.dumps({**VALID, "rows": [{**ROW, "metrics": {"steps": "3"}}]}), "steps"),
        (json.dumps({**VALID, "rows": [{**ROW, "metrics": {"steps": float("nan")}}]}), "NaN"),
    ],
)
def test_a_summary_that_is_not_ours_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "summary.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ResultsError, match=message) as caught:
        load_summary(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_absent_summary_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="no such file"):
        load_summary(tmp_path)


def test_the_environment_names_versions_and_no_person_or_place(tmp_path):
    environment = describe_environment()
    text = json.dumps(environment, allow_nan=False)
    assert environment["packages"]["numpy"]
    assert os.uname().nodename not in text.replace(environment["release"], "")
    assert str(tmp_path.anchor) + "root" not in text
    assert os.path.expanduser("~") not in text
    assert git_state(tmp_path) is None


def test_a_checkout_that_was_never_installed_names_its_dependencies(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    named = package_versions()
    assert {"numpy", "numba", "safetensors", "scipy"} <= set(named)
    assert "pytest" not in named, "what the tests need is an extra"
