"""The suite of `+experiment=ci` gives the tracked baselines, to the last count."""

import json
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from harness.__main__ import main as harness_main
from harness.compare import compare_cases, load_cases
from harness.compare.baseline import main
from harness.compare.render import as_table
from tests.places import ROOT

BASELINES = ROOT / "results" / "baselines"


@pytest.fixture
def harness(tmp_path, monkeypatch):
    """A function from arguments to the exit status of `python -m harness`, in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            harness_main()
        return ended.value.code

    monkeypatch.chdir(tmp_path)
    return run


def test_the_suite_gives_the_tracked_baselines(harness, tmp_path, monkeypatch):
    # Twenty figures take longer than the suite itself, and decide nothing here.
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: Path(path).touch())
    assert harness("+experiment=ci", f"hydra.sweep.dir={tmp_path}/suite") == 0
    judgement = compare_cases(
        load_cases([BASELINES]), load_cases([tmp_path / "suite"]), measured=False, strict=True
    )
    changed = [finding for finding in judgement.findings if finding.verdict != "same"]
    hint = "if this is meant, run `make baseline` and commit what it writes"
    assert not changed, f"{hint}\n{as_table(judgement)}"
    assert not judgement.problems, f"{hint}\n{as_table(judgement)}"
    # Rewriting them from an unchanged suite changes no file.
    copy = tmp_path / "baselines"
    assert main([str(tmp_path / "suite"), str(copy)]) == 0
    for path in BASELINES.glob("*.json"):
        ours, theirs = (
            json.loads((folder / path.name).read_text()) for folder in (BASELINES, copy)
        )
        assert ours["config"] == theirs["config"]


def test_baselines_hold_nothing_of_a_machine():
    files = sorted(BASELINES.glob("*.json"))
    assert len(files) >= 5
    assert sum(path.stat().st_size for path in files) < 200_000
    for path in files:
        summary = json.loads(path.read_text())
        assert set(summary["environment"]) == {"python", "packages"}
        for row in summary["rows"]:
            assert "allocator_us_per_step" not in row["metrics"]


def test_rewriting_prints_what_changed_and_drops_what_is_gone(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "suite" / name).mkdir(parents=True)
        source = json.loads(sorted(BASELINES.glob("*.json"))[0].read_text())
        source["config"]["workload"]["name"] = name
        (tmp_path / "suite" / name / "summary.json").write_text(json.dumps(source))
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "old.json").write_text(json.dumps(source | {"config": {"seed": 9}}))
    assert main([str(tmp_path / "suite"), str(tmp_path / "held")]) == 0
    assert {path.name for path in (tmp_path / "held").iterdir()} == {"a.json", "b.json"}
    assert "MISSING" in capsys.readouterr().out
    source["rows"][0]["metrics"]["steps"] += 1
    (tmp_path / "suite" / "b" / "summary.json").write_text(json.dumps(source))
    main([str(tmp_path / "suite"), str(tmp_path / "held")])
    assert "steps" in capsys.readouterr().out
    assert main([str(tmp_path / "none"), str(tmp_path / "held")]) == 2


def test_an_experiment_is_checked_before_it_runs(harness, tmp_path, capsys):
    for options, words in (
        (("+experiment=cu",), "did you mean ci"),
        (("+experiment=ci", "kv_tokens=-1"), "kv_tokens must be at least 1"),
        (("+experiment=ci", "+workload=beam"), "workload"),
    ):
        assert harness(*options, f"hydra.sweep.dir={tmp_path}/suite") == 2
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert words in said
        assert not list(tmp_path.glob("suite/*"))
