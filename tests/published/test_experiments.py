"""Published figures as experiments: the table, the page, a run of one, and bad input."""

import json
import re

import pytest
import yaml

from harness.cli.help import published
from harness.errors import ConfigError
from harness.published.command import ALL, KEPT, PAGE, Options, chosen, compute, read_result, run
from harness.published.experiment import load
from harness.published.reference import Figure, figures
from harness.published.registry import MAKERS
from harness.published.render import rewritten, screen
from harness.published.tasks import prepared_for
from tests.inprocess import run_harness
from tests.places import CONF, ROOT, SHARED_DATA

KINDS = ("printed", "transcribed", "computed", "words", "said")


def figure(low, high, unit="x", accept="range"):
    return Figure("e", "r", low, high, unit, accept, False, "printed", "s")


def kept(name):
    return read_result(ROOT / KEPT / f"{name}.json")


@pytest.mark.parametrize(
    ("published", "value", "difference", "verdict"),
    [
        (figure("1.7", "2.7"), 2.0, "0", "yes"),
        (figure("1.7", "2.7"), 1.69, "-0.6 %", "no"),
        (figure("", "22"), 30.0, "+36.4 %", "no"),
        (figure("2", ""), 3.0, "0", "yes"),
        (figure("30.42", "30.42", accept="rel 0.1"), 27.4, "-9.9 %", "yes"),
        (figure("30.42", "30.42", accept="rel 0.1"), 27.3, "-10.3 %", "no"),
        (figure("6.09", "6.09", "%", "abs 1"), 7.08, "+0.99 points", "yes"),
        (figure("6.09", "6.09", "%", "abs 1"), 5.08, "-1.01 points", "no"),
        (figure("0", "0", "%", "abs 1"), 0.0, "0", "yes"),
        (figure("64", "64", "tokens"), 64.0, "0", "yes"),
        (figure("64", "64", "tokens"), 63.0, "-1.6 %", "no"),
    ],
)
def test_a_verdict_is_what_the_table_accepts(published, value, difference, verdict):
    assert published.difference(value) == difference
    assert published.verdict(value) == verdict


def test_every_published_number_has_a_source_and_belongs_to_an_experiment():
    assert set(figures()) == set(MAKERS)
    for rows in figures().values():
        for each in rows.values():
            assert each.source
            assert each.kind in KINDS
            assert each.low or each.high
            assert re.fullmatch(r"range|(rel|abs) [\d.]+", each.accept), each
            each.verdict(1.0)


def test_every_experiment_has_a_file_and_every_file_an_experiment():
    files = {
        path.stem
        for path in (CONF / "experiment").glob("*.yaml")
        if "published" in yaml.safe_load(path.read_text())
    }
    assert files == {*MAKERS, ALL}
    assert set(published()) == set(MAKERS)
    assert all(chosen([f"+experiment={name}"]) == name for name in files)
    assert chosen(["+experiment=ci"]) is None


@pytest.mark.parametrize("name", MAKERS)
def test_kept_results_are_of_the_set_ups_and_figures_as_they_are(name):
    result, experiment = kept(name), load(name)
    assert result["setups"] == experiment.commands()
    assert result["title"] == experiment.title
    assert not result["absent"]
    assert not result["failures"]
    published = figures()[name]
    assert {row["row"] for row in result["rows"] if row["published"]} == set(published)
    for row in result["rows"]:
        for cell in row["ours"].values():
            assert cell["value"] is not None, row["row"]
            if row["published"]:
                each = published[row["row"]]
                assert row["published"] == {key: getattr(each, key) for key in row["published"]}, (
                    row["row"]
                )
                assert cell["verdict"] == each.verdict(cell["value"])
                assert cell["difference"] == each.difference(cell["value"])


def test_the_page_is_what_the_kept_results_say():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert rewritten(page, {name: kept(name) for name in MAKERS}, PAGE) == page


@pytest.mark.parametrize("name", ["pagedattention_fig2", "vattention_table8", "vattention_overlap"])
def test_a_cheap_one_gives_what_was_kept(name):
    options = Options(None, ROOT, ROOT, 2, ())
    assert compute([name], options)[name] == kept(name)


@pytest.mark.shared_data
def test_hit_rates_are_those_that_were_kept(shared_file):
    shared_file("mooncake/conversation_trace.jsonl.gz")
    options = Options(SHARED_DATA, ROOT, ROOT, 1, ())
    name = "mooncake_hitrate"
    assert compute([name], options)[name] == kept(name)


def test_absent_data_are_a_row_that_says_so_and_cost_nothing_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KV_HARNESS_SHARED", raising=False)
    assert run("mooncake_hitrate", [f"out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert "data absent" in printed
    assert "no folder of public data is given (data=DIR)" in printed
    result = json.loads((tmp_path / "mooncake_hitrate.json").read_text())
    assert all(row["ours"]["ours"]["value"] is None for row in result["rows"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["+experiment=pagedattention_fig14", "software=nomi"], "did you mean nominal"),
        (["+experiment=pagedattention_fig14", "engine.max_le=5"], "did you mean engine.max_len"),
        (["+experiment=pagedattention_fig14", "engine.max_len=-1"], "must be at least 1"),
        (["+experiment=pagedattention_fig14", "-m"], "takes no -m"),
        (["+experiment=pagedattention_fig14", "workers=0"], "workers must be"),
        (["+experiment=mooncake_hitrate", "data=/nowhere"], "data=/nowhere: no such folder"),
        (["+experiment=all", "seed=1"], "takes no seed=1"),
        (["+experiment=all", "page=/nowhere.md"], "page=/nowhere.md: cannot be read"),
        (["+experiment=pagedattention_fig"], "did you mean"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path):
    done = run_harness(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_folder_of_a_run_is_refused():
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir is an option of python"):
        run("pagedattention_fig14", ["hydra.run.dir=here"])


def test_a_group_that_is_left_out_is_refused():
    with pytest.raises(ConfigError, match="model=null leaves model out; choose one of "):
        prepared_for(["+workload=beam", "model=null"])


def test_a_page_without_a_place_for_a_figure_is_refused():
    with pytest.raises(ConfigError, match="0 parts for pagedattention_fig2"):
        rewritten("nothing", {"pagedattention_fig2": kept("pagedattention_fig2")}, "a.md")
    with pytest.raises(ConfigError, match="a part for gone"):
        rewritten("<!-- published: gone -->\n<!-- end -->", {}, "a.md")


def test_an_allocator_that_does_not_run_is_said_and_costs_only_its_rows():
    options = Options(None, ROOT, ROOT, 2, ("allocator=[paged]", "workload.num_requests=300"))
    result = compute(["pagedattention_fig2"], options)["pagedattention_fig2"]
    assert result["failures"]["ours"][0] == "at once: contiguous_max: not compared"
    verdicts = {row["row"]: row["ours"]["ours"]["verdict"] for row in result["rows"]}
    assert verdicts["Orca (Max), token"] == "not run"
    assert verdicts["vLLM, token"] in ("yes", "no")
    assert "contiguous_max: not compared" in screen(result)
