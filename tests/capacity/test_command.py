"""The command: what it writes, what it refuses, and that no run is made twice."""

import json
from contextlib import chdir

import pytest

from harness.capacity.__main__ import main
from tests.capacity.single import ONE

SMALL = ("slo.ttft_mean_s=0.06", "requests=100", "seeds=2", "tolerance=0.1", "jobs=1")


def run(capsys, *arguments, folder):
    with chdir(folder):
        status = main([*ONE, *arguments])
    return status, *capsys.readouterr()


def test_an_answer_is_written_and_costs_nothing_the_second_time(tmp_path, capsys):
    asked = (*SMALL, "also=engine.max_num_seqs=2", "price_per_gpu_hour=2", "out=here")
    status, out, err = run(capsys, *asked, folder=tmp_path)
    assert status == 0, err
    found = json.loads((tmp_path / "here" / "capacity.json").read_text())
    one, two = found["rows"]
    assert [one["label"], two["label"]] == ["paged", "paged, engine.max_num_seqs=2"]
    assert one["label"] in out
    assert two["rate"]["mean"] >= one["rate"]["mean"]
    assert one["held_back_by"] == "slo.ttft_mean_s"
    assert one["metrics"]["ttft_mean_s"] <= 0.06
    # 101 tokens a request, of which one is output; a GPU-hour costs 2.
    served = one["metrics"]["requests_per_s"]
    assert one["metrics"]["total_tokens_per_s"] == pytest.approx(101 * served)
    assert one["price_per_million"]["output"] == pytest.approx(2 / 3600 / served * 1e6)
    rates = [point["rate"] for point in one["curve"]]
    assert rates == sorted(rates)
    assert len(rates) >= 8
    assert (tmp_path / "here" / "capacity.png").stat().st_size > 10_000
    page = (tmp_path / "here" / "capacity.html").read_text()
    assert "sustains" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    status, again, err = run(capsys, *asked, folder=tmp_path)
    assert (status, again) == (0, out)
    assert "0 runs made" in err


def test_ctrl_c_keeps_what_was_run(tmp_path, capsys, monkeypatch):
    from harness.capacity.kept import Kept

    put = Kept.put

    def interrupted(self, key, seen):
        put(self, key, seen)
        if len(list(self.folder.glob("*/*.json"))) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "put", interrupted)
    status, out, err = run(capsys, *SMALL, "curve=false", folder=tmp_path)
    assert (status, out) == (130, "")
    assert err.count("\n") == 1
    assert "interrupted; what was run is kept in results/runs/capacity-kept" in err
    monkeypatch.setattr(Kept, "put", put)
    status, out, err = run(capsys, *SMALL, "curve=false", folder=tmp_path)
    assert status == 0
    assert "3 kept from before" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("slo.ttft_p95_s=1",), "slo.ttft_p95_s: no such limit"),
        (("slo.ttft_p99_s=1e-6", *SMALL[1:]), "no rate meets slo.ttft_p99_s=1e-06: even at "),
        (
            ("engine.max_num_seqs=100", *SMALL[1:]),
            "no rate is too high: 100 requests hold every limit",
        ),
        (("workload.rate=2",), "workload.rate=2: the rate is what is searched for"),
        (("workload.concurrency=2",), "a closed loop has no rate"),
        (("workload.arrivals=all_at_once",), "has no rate"),
        (("executor=model",), "simulated clock"),
        (("price_per_gpu_hour=0",), "price_per_gpu_hour must be a positive number"),
        (("seeds=0",), "seeds must be at least 1, got 0"),
        (("requests=100", "duration=3"), "not both"),
        (("engine.max_num_seqs=1,2",), "engine.max_num_seqs=1,2 lists several values"),
        (("also=",), "also= has no options"),
        (("also=seed=0 engine.max_num_seqs=1", "also=seed=0 engine.max_num_seqs=1"), "twice"),
        (("also=engine.max_num_seqs=1 slo.ttft_s=1",), "limits hold for every row"),
        (("hydra.run.dir=here",), "hydra.run.dir is an option of python -m harness; out=DIR"),
        (("sweep.maximize=requests_per_s",), "sweep.maximize is an option of python -m harness"),
        (("kept=/dev/null",), "kept=/dev/null is a file; expected a directory"),
        (("engine.max_seqs=2",), "unknown option engine.max_seqs"),
        (("-m",), "-m: expected OPTION=VALUE"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(tmp_path, capsys, arguments, says):
    status, out, err = run(capsys, *arguments, folder=tmp_path)
    assert (status, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert not list(tmp_path.glob("*/runs/capacity-2*"))


def test_what_cannot_be_drawn_is_a_note_and_the_answer_is_there(tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise ValueError("no such\nbackend")

    monkeypatch.setattr("harness.capacity.figure.draw", broken)
    status, out, err = run(capsys, *SMALL, "curve=false", "out=here", folder=tmp_path)
    assert (status, "sustains" in out) == (0, True)
    assert err.endswith("note: no figure and no page: no such backend\n")
    assert json.loads((tmp_path / "here" / "capacity.json").read_text())["limits"] == {
        "ttft_mean_s": 0.06
    }


def test_a_workload_is_needed(capsys):
    assert main(["slo.ttft_p99_s=1"]) == 2
    assert "+workload=NAME is needed, one of agentic, alpaca" in capsys.readouterr().err
