"""A multirun's jobs in one table."""

import csv
import io
import json

import pytest

import harness.results.sweep as sweep_module
from harness.cli.sweeps.table import combine, end_sweep
from harness.results import ResultRow, ResultsError
from tests.results.directories import write_run


def job(sweep_dir, number, overrides, rows, *, config=None, recorded=True):
    path = sweep_dir / str(number)
    if rows is not None:
        write_run(path, config or {}, {}, rows)
    if recorded:
        (path / ".hydra").mkdir(parents=True)
        (path / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
        numbered = {"hydra": {"job": {"num": number}}}
        (path / ".hydra" / "hydra.yaml").write_text(json.dumps(numbered))


def row(value):
    return ResultRow("paged", metrics={"token_share": value, "preemptions": 0})


def test_jobs_come_in_their_order_with_their_options(tmp_path):
    for number, size in ((2, 64), (10, 512), (0, 8)):
        options = ["+workload=sharegpt", f"allocators.paged.block_size={size}"]
        job(tmp_path, number, options, [row(1 - size / 1000)])
    file = io.StringIO()
    rows = combine(tmp_path, file=file)
    assert [r.overrides["allocators.paged.block_size"] for r in rows] == [8, 64, 512]
    lines = file.getvalue().splitlines()
    assert "block_size" in file.getvalue()
    assert "sharegpt" not in file.getvalue()  # the same everywhere
    assert [line.split()[0] for line in lines if " paged " in line] == ["8", "64", "512"]
    assert "99.2*" in file.getvalue()

    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["varied"] == ["allocators.paged.block_size"]
    assert written["rows"][0]["overrides"]["workload"] == "sharegpt"
    table = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [line["allocators.paged.block_size"] for line in table] == ["8", "64", "512"]
    assert table[0]["token_share"] == "0.992"
    assert table[0]["ttft_p50_s"] == ""


def test_a_job_that_left_nothing_is_a_row(tmp_path):
    job(tmp_path, 0, ["workload.rate=1"], [row(0.5)])
    job(tmp_path, 1, ["workload.rate=inf"], None)
    (tmp_path / "1" / "summary.json").write_text('{"schema_version": 1')
    rows = combine(tmp_path, file=io.StringIO())
    assert (rows[0].row.status, rows[0].overrides) == ("ok", {"workload.rate": 1})
    assert rows[1].row.status == "error"
    assert str(tmp_path) not in rows[1].row.reason
    assert json.loads((tmp_path / "sweep.json").read_text())["rows"][1]["overrides"] == {
        "workload.rate": "inf"
    }


def test_options_are_inferred_from_the_configurations_when_hydra_kept_none(tmp_path):
    for number in (0, 1):
        config = {"seed": 0, "workload": {"rate": number + 1.5}}
        job(tmp_path, number, [], [row(0.5)], config=config, recorded=False)
    rows = combine(tmp_path, file=io.StringIO())
    assert [r.overrides for r in rows] == [{"workload.rate": 1.5}, {"workload.rate": 2.5}]


def test_the_end_of_a_sweep_is_its_table_its_files_and_its_report(tmp_path, capsys):
    job(tmp_path, 0, ["seed=1"], [row(0.5)])
    assert end_sweep(tmp_path, report=True) == 0
    assert "paged" in capsys.readouterr().out
    assert {"sweep.csv", "sweep.json", "report.md"} <= {path.name for path in tmp_path.iterdir()}


def test_a_full_disk_costs_a_sweep_its_files_and_not_its_table(tmp_path, capsys, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    job(tmp_path, 0, ["seed=1"], [row(0.5)])
    monkeypatch.setattr(sweep_module, "write_text", full)
    assert end_sweep(tmp_path, report=True) == 1
    shown = capsys.readouterr()
    assert "paged" in shown.out
    assert "No space left on device" in shown.err
    assert shown.err.count("\n") == 1


def test_an_empty_directory_is_no_sweep(tmp_path):
    with pytest.raises(ResultsError, match="no run of a sweep"):
        combine(tmp_path)


def test_where_the_number_of_gpus_varies_there_is_a_rate_a_gpu(tmp_path):
    for number, count in enumerate((1, 4)):
        rate = ResultRow("paged", metrics={"output_tokens_per_s": 100.0 * (number + 1)})
        job(tmp_path, number, [f"hardware.count={count}", "seed=0"], [rate])
    job(tmp_path, 2, ["hardware.count=2", "seed=0"], [ResultRow("paged", "oom", "no room")])
    file = io.StringIO()
    combine(tmp_path, file=file)
    lines = file.getvalue().splitlines()
    assert "a GPU" in lines[1]
    assert "100*" in next(line for line in lines if line.startswith("1 "))
    assert " 50.0" in next(line for line in lines if line.startswith("4 "))
    assert "per_gpu" not in (tmp_path / "sweep.csv").read_text()
