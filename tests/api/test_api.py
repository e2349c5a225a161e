"""The program from Python: runs and sweeps as tables, nothing printed, one line for bad input."""

import re

import pandas as pd
import pytest

from harness import InputError
from harness.api import Results, load, run
from harness.results import Claim, ResultsError
from tests.cli.sweeps.small import SMALL
from tests.places import ROOT

DOCUMENT = ROOT / "docs" / "sweeps.md"


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    """A sweep of two block sizes, and where it lies."""
    folder = tmp_path_factory.mktemp("api") / "sizes"
    return run([*SMALL, "allocator=[paged]", "allocators.paged.block_size=8,64"], folder), folder


def test_a_run_is_a_table_of_its_allocators(tmp_path, capsys):
    results = run([*SMALL, "allocator=[paged,contiguous_max]"], tmp_path / "one")
    assert isinstance(results, Results)
    assert results.table["allocator"].tolist() == ["paged", "contiguous_max"]
    assert results.table["status"].tolist() == ["ok", "ok"]
    assert (results.table["requests_per_s"] > 0).all()
    assert len(results.requests) == 2 * 3
    assert set(results.timeline["allocator"]) == {"paged", "contiguous_max"}
    assert "<table" in results._repr_html_()
    assert results.report is None
    assert capsys.readouterr().out == ""


def test_a_sweep_is_a_table_of_all_its_jobs(sizes, capsys):
    results, folder = sizes
    assert results.table["allocators.paged.block_size"].tolist() == [8, 64]
    assert results.table["run"].tolist() == [str(folder / "0"), str(folder / "1")]
    assert results.requests["run"].nunique() == 2
    assert (folder / "sweep.csv").exists()
    again = run(
        [*SMALL, "allocator=[paged]", "allocators.paged.block_size=8,64", "sweep.resume=true"],
        folder,
    )
    pd.testing.assert_frame_equal(again.table, results.table)
    assert capsys.readouterr().out == ""


def test_load_takes_patterns_runs_sweeps_and_summaries(sizes):
    _, folder = sizes
    whole = load(folder, options=["model.name"])
    assert (whole["model.name"] == "Llama-tiny").all()
    for pattern in (f"{folder}/*", f"{folder}/*/summary.json", f"{folder.parent}/**"):
        assert load(pattern)["run"].tolist() == whole["run"].tolist()
    assert "seed" not in load(folder), "the same everywhere"
    with pytest.raises(ResultsError, match="no run and no sweep"):
        load(f"{folder}/none-*")


def test_a_job_that_left_nothing_is_a_row_of_a_sweep(sizes, tmp_path):
    _, folder = sizes
    for name in ("0", "1"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text("[]")
    (tmp_path / "1" / "summary.json").write_text((folder / "1" / "summary.json").read_text())
    table = load(tmp_path)
    assert table["status"].tolist() == ["error", "ok"]
    with pytest.raises(ResultsError):
        load(tmp_path / "0" / "summary.json")


def test_bad_input_is_an_error_of_one_line(tmp_path):
    with pytest.raises(InputError, match="block_size must be a whole number"):
        run([*SMALL, "allocator=[paged]", "allocators.paged.block_size=0"], tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with Claim(tmp_path / "y"), pytest.raises(InputError, match="another run is writing there"):
        run([*SMALL, "allocator=[paged]"], tmp_path / "y")


def test_the_examples_of_the_document_run(tmp_path, monkeypatch):
    pytest.importorskip("duckdb", reason="needs kv-harness[duckdb]")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        *lines, last = block.rstrip().split("\n\n") if "duckdb" in block else [block]
        exec("\n\n".join(lines), names)
        if last.startswith("duckdb.sql"):
            names["answer"] = eval(last, names)
        else:
            exec(last, names)
    assert len(names["everything"]) == 3
    answer = names["answer"]
    assert answer["allocator"].tolist() == ["paged"] * 3
    exact = names["results"].table["ttft_p99_s"]
    assert answer["ttft_p99_s"].tolist() == pytest.approx(exact.tolist())
