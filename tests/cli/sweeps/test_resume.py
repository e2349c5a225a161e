"""A sweep goes on where it stopped: what is missing or failed runs, and nothing else."""

import json
import shutil

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

import harness.comparison.key as key_module
from harness.cli.checks import check
from harness.cli.overrides import grid
from harness.cli.points import Points
from harness.cli.sweeps.composer import Composer
from harness.comparison import compose
from harness.comparison.config import plain_options
from harness.comparison.key import job_key
from harness.results import Claim
from harness.results.outcome import read_outcome
from tests.cli.sweeps.killed import VARIANTS, kill_half_way
from tests.cli.sweeps.small import SMALL, ended, problem, rows, sweep, table

SIZES = "allocators.paged.block_size=8,16,32"


def test_only_what_is_missing_or_failed_runs_again(tmp_path, capsys):
    whole, folder = tmp_path / "whole", tmp_path / "s"
    assert sweep(whole, SIZES) == 0
    shutil.copytree(whole, folder)
    for name in ("sweep.csv", "sweep.json"):
        (folder / name).unlink()
    # One job was cut short, another failed; the first has ended.
    cut = (folder / "1" / "job.json").read_text()[:40]
    (folder / "1" / "job.json").write_text(cut)
    (folder / "1" / "summary.json").write_text('{"schema_version": 1')
    outcome = json.loads((folder / "2" / "job.json").read_text())
    (folder / "2" / "job.json").write_text(json.dumps({**outcome, "finished": False}))
    before = ended(folder)
    capsys.readouterr()
    assert sweep(folder, SIZES, "sweep.resume=true") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said if line.startswith("[")] == [
        "[2/3] block_size=16", "[3/3] block_size=32",
    ]  # fmt: skip
    assert ended(folder)["0"] == before["0"]
    assert ended(folder)["2"] > before["2"]
    assert table(folder) == table(whole)
    assert sweep(folder, SIZES, "sweep.resume=true") == 0
    shown = capsys.readouterr()
    assert "note: all 3 jobs have ended already" in shown.err
    assert "best of its column" in shown.out


def test_other_points_take_over_the_jobs_that_they_share(tmp_path):
    """Jobs move to the places of the new points; those without one are kept for later."""
    sweep(tmp_path, "allocators.paged.block_size=8,16")
    keys = {name: read_outcome(tmp_path / name).key for name in ("0", "1")}
    before = ended(tmp_path)
    assert sweep(tmp_path, "allocators.paged.block_size=4,8", "sweep.resume=true") == 0
    assert ended(tmp_path)["1"] == before["0"]
    assert [row["overrides"]["allocators.paged.block_size"] for row in rows(tmp_path)] == [4, 8]
    assert (tmp_path / ".kept" / keys["1"] / "summary.json").exists()
    assert sweep(tmp_path, "allocators.paged.block_size=8,16", "sweep.resume=true") == 0
    assert ended(tmp_path) == before


def test_a_point_that_takes_over_what_points_share_is_what_hydra_composes():
    parser = OverridesParser.create()
    given = ["+workload=beam", "workload.rate=1,2", "seed=3,4", "model=opt-13b,llama-3-8b",
             "engine=chunked", "engine.max_num_seqs=8,16"]  # fmt: skip
    overrides = parser.parse_overrides(given)
    composer = Composer(overrides)
    for point in list(grid(overrides))[::5]:
        assert plain_options(composer.compose(point)) == plain_options(compose(*point)), point
    for wrong in ("seed=1,text", "sampling={width: 2},{width: 3}"):
        overrides = parser.parse_overrides(["+workload=beam", "engine.max_num_seqs=4", wrong])
        composer, points = Composer(overrides), list(grid(overrides))
        composer.compose(points[0])
        if "text" in wrong:
            with pytest.raises(HydraException, match="Error merging override seed=text"):
                composer.compose(points[1])
        else:
            found, hydras = composer.compose(points[1]), compose(*points[1])
            assert plain_options(found) == plain_options(hydras)


def test_a_change_of_the_code_makes_all_jobs_anew(tmp_path, monkeypatch):
    sweep(tmp_path, "seed=1,2")
    before = ended(tmp_path)
    monkeypatch.setattr(key_module, "_source", lambda package: "changed")
    assert sweep(tmp_path, "seed=1,2", "sweep.resume=true") == 0
    assert all(ended(tmp_path)[name] > written for name, written in before.items())


def test_a_key_is_that_of_what_the_results_depend_on(tmp_path, monkeypatch):
    trace = tmp_path / "t.csv"
    trace.write_text("num_prefill_tokens,num_decode_tokens\n5,6\n")
    given = ("+workload=trace", f"workload.path={trace}")
    key = job_key(compose(*given))
    assert key == job_key(compose(*given, "sweep.resume=true"))
    assert key != job_key(compose(*given, "seed=1"))
    trace.write_text("num_prefill_tokens,num_decode_tokens\n5,7\n")
    assert key != job_key(compose(*given))

    module = tmp_path / "my_allocator.py"
    module.write_text("from allocators.paged import Paged as Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = (*SMALL, "allocator=[paged]", "allocators.paged._target_=my_allocator.Mine")
    key = job_key(compose(*mine))
    module.write_text("from allocators.paged import Paged as Mine  # changed\n")
    assert key == job_key(compose(*mine)), "a process reads the code once"
    key_module._source.cache_clear()
    assert key != job_key(compose(*mine))


def test_a_sweep_killed_half_way_ends_in_the_same_table(tmp_path):
    """Workers and all; `python -m tests.cli.sweeps.killed` does it with 200 jobs."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs kv-harness[joblib]")
    killed, whole, jobs = tmp_path / "killed", tmp_path / "whole", 8
    points = (VARIANTS, f"seed=range(0,{jobs})")
    kill_half_way(killed, jobs, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    left = ended(killed)
    assert 4 <= len(left) < jobs
    assert not (killed / "sweep.csv").exists()
    assert sweep(killed, *points, "sweep.resume=true") == 0
    assert {name: ended(killed)[name] for name in left} == left
    assert sweep(whole, *points) == 0
    assert len(table(whole)) == 2 * jobs
    assert table(killed) == table(whole)


def test_a_folder_that_holds_no_sweep_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    said = problem(tmp_path, SIZES, "sweep.resume=true")
    assert "this is none (it holds notes.txt and no multirun.yaml)" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_sweep_to_go_on_with_is_named():
    said, _ = check(["-m", *SMALL, SIZES, "sweep.resume=true"], Points())
    assert said == "sweep.resume=true needs the folder to go on in: hydra.sweep.dir=DIR"


def test_two_sweeps_in_one_folder_are_one_too_many(tmp_path):
    with Claim(tmp_path):
        for more in ((), ("sweep.resume=true",)):
            said = problem(tmp_path, SIZES, *more)
            assert said == f"{tmp_path}: another run is writing there; choose another directory"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((SIZES, "hydra.sweep.subdir=x"), "gives two jobs one folder, x: let it hold"),
        (("workload.rate=interval(1,2)",), "is no list of values: hydra/sweeper=optuna searches"),
        (("hydra/launcher=nobody",), "hydra/launcher=nobody: no such option; there are basic"),
        (("hydra/sweeper=nothing",), "hydra/sweeper=nothing: no such option; there are basic"),
        (("sweep.at_most={ttft_p99_s: 1}",), "sweep.maximize=METRIC looks for: give both"),
        (("sweep.maximize=ttft_p99_s",), "sweep.maximize: 'ttft_p99_s' is none of "),
        (
            ("sweep.maximize=requests_per_s", "sweep.at_most={requests_per_s: 1}"),
            "sweep.at_most: 'requests_per_s' is none of ",
        ),
        (
            ("sweep.maximize=requests_per_s", "sweep.at_most={ttft_p99_s: 0}"),
            "sweep.at_most.ttft_p99_s must be a positive number, got 0",
        ),
        (
            ("sweep.maximize=goodput_requests_per_s", "slo.ttft_s=1,null"),
            "sweep.maximize=goodput_requests_per_s counts good requests: set one of slo.ttft_s, ",
        ),
        (("sweep.maximize=requests_per_s", "sweep.at_most=3"), "must be {METRIC: VALUE, ...}"),
    ],
)
def test_what_makes_no_sweep_is_one_line_before_any_job(overrides, said, tmp_path):
    found = problem(tmp_path / "s", *overrides)
    assert said in found
    assert "\n" not in found
    assert not (tmp_path / "s").exists()
