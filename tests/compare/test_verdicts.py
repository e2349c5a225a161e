"""What counts as a regression, and what exit status says so."""

import json

import numpy as np
import pytest

from harness.compare.__main__ import main
from harness.results import ResultRow
from harness.results.metrics import METRICS
from tests.compare.runs import metrics, write, write_repeats

EXACT = [metric for metric in METRICS if metric.deterministic]


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.fixture
def base(tmp_path):
    return write(tmp_path / "base")


def test_equal_runs_have_no_regression(base, tmp_path, capsys):
    status, out, _ = run(capsys, base, write(tmp_path / "new"))
    assert status == 0
    assert out == "no regression in 1 row\n"


@pytest.mark.parametrize("metric", EXACT, ids=lambda metric: metric.name)
def test_each_exact_metric_fails_in_its_own_direction_only(metric, base, tmp_path, capsys):
    value = metrics()[metric.name]
    for sign, worse in ((1, "lower"), (-1, "higher")):
        changed = value + sign if isinstance(value, int) else value * (1 + sign * 1e-6)
        new = write(
            tmp_path / f"{sign}", [ResultRow("paged", metrics=metrics(**{metric.name: changed}))]
        )
        status, out, _ = run(capsys, base, new)
        assert status == (1 if metric.direction == worse else 0)
        assert f"beam  paged      {metric.name}  " in out
        strict, _, _ = run(capsys, base, new, "--strict")
        assert strict == (1 if metric.direction in (worse, "none") else 0)


def test_the_last_bits_of_a_sum_are_no_change(base, tmp_path, capsys):
    new = write(tmp_path / "new", [ResultRow("paged", metrics=metrics(e2e_mean_s=2.5 + 1e-13))])
    assert run(capsys, base, new)[0] == 0


def test_regression_is_named_with_metric_allocator_and_workload(base, tmp_path, capsys):
    new = write(tmp_path / "new", [ResultRow("paged", metrics=metrics(token_share=0.25))])
    status, out, _ = run(capsys, base, new)
    assert status == 1
    last = out.splitlines()[-1]
    assert last == "1 regression, first beam / paged: token_share 0.5 -> 0.25 (-50.00 %)"


def test_an_option_that_an_older_run_does_not_know_stands_at_its_default(base, tmp_path, capsys):
    row = ResultRow("paged", metrics=metrics())
    new = write(tmp_path / "new", [row], config={"engine.preemption": "recompute"})
    assert run(capsys, base, new)[0] == 0
    other = write(tmp_path / "other", [row], config={"engine.preemption": "swap"})
    status, out, _ = run(capsys, base, other)
    assert status == 2
    assert "engine.preemption: recompute -> swap" in out


def test_a_missing_row_is_a_regression_and_a_new_one_is_not(base, tmp_path, capsys):
    both = write(
        tmp_path / "new",
        [ResultRow("paged", metrics=metrics()), ResultRow("mine", metrics=metrics())],
    )
    assert run(capsys, base, both)[0] == 0
    status, out, _ = run(capsys, both, base)
    assert status == 1
    assert "mine" in out
    assert "MISSING" in out


def test_a_missing_metric_is_a_regression(base, tmp_path, capsys):
    values = metrics()
    del values["token_share"]
    assert run(capsys, base, write(tmp_path / "new", [ResultRow("paged", metrics=values)]))[0] == 1


@pytest.mark.parametrize("status", ["oom", "unsupported", "error"])
def test_a_row_that_stops_working_is_a_regression(status, base, tmp_path, capsys):
    new = write(tmp_path / "new", [ResultRow("paged", status, "the pool is too small")])
    code, out, _ = run(capsys, base, new)
    assert code == 1
    assert "the pool is too small" in out
    assert run(capsys, new, base)[0] == 0
    assert run(capsys, new, new)[0] == 0


def test_undefined_is_a_change_that_fails_only_when_strict(base, tmp_path, capsys):
    new = write(tmp_path / "new", [ResultRow("paged", metrics=metrics(saturated_token_share=None))])
    assert run(capsys, base, new)[0] == 0
    assert run(capsys, base, new, "--strict")[0] == 1


def test_allocator_settings_are_under_test_and_noted(base, tmp_path, capsys):
    row = ResultRow("paged", metrics=metrics(internal_share=0.9))
    new = write(tmp_path / "new", [row], config={"allocators.paged.block_size": 256})
    status, out, _ = run(capsys, base, new)
    assert status == 1
    assert "settings differ: block_size: 16 -> 256" in out


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        ("seed", 1, 2),
        ("model.name", "OPT-66B", 2),
        ("workload.num_requests", 11, 2),
        ("workload.source", "reworded", 0),
        ("engine.skip_ahead", False, 0),
    ],
)
def test_another_configuration_cannot_be_compared(option, value, status, base, tmp_path, capsys):
    new = write(tmp_path / "new", config={option: value})
    code, out, _ = run(capsys, base, new)
    assert code == status
    assert (f"configuration differs: {option}" in out) == (status == 2)


def test_runs_that_differ_in_limits_alone_are_compared_but_for_who_keeps_them(tmp_path, capsys):
    limits = {"slo": {"ttft_s": 1.0}}
    old = write(tmp_path / "old", config=limits)
    fewer = metrics(goodput_requests_per_s=0.1, good_share=0.1)
    new = write(
        tmp_path / "new", [ResultRow("paged", metrics=fewer)], config={"slo": {"ttft_s": None}}
    )
    status, out, _ = run(capsys, old, new)
    assert (status, out.splitlines()[0]) == (
        0,
        "note: beam: limits differ (slo.ttft_s: 1.0 -> None): goodput_requests_per_s and "
        "good_share are not compared",
    )
    worse = ResultRow("paged", metrics={**fewer, "token_share": 0.1})
    status, out, _ = run(
        capsys, old, write(tmp_path / "worse", [worse], config={"slo": {"ttft_s": None}})
    )
    assert (status, "token_share" in out, "good_share  " in out) == (1, True, False)
    same = write(tmp_path / "same", [ResultRow("paged", metrics=fewer)], config=limits)
    assert run(capsys, old, same)[0] == 1


def test_the_folder_of_a_trace_is_not_the_configuration(tmp_path, capsys):
    old = write(tmp_path / "a", config={"workload.path": "/data/here/trace.csv"})
    new = write(tmp_path / "b", config={"workload.path": "there/trace.csv"})
    assert run(capsys, old, new)[0] == 0


def test_a_regression_is_not_hidden_by_what_cannot_be_compared(tmp_path, capsys):
    for name, seed, share in (("old", 0, 0.5), ("new", 1, 0.1)):
        write(tmp_path / name / "beam", config={"seed": seed})
        rows = [ResultRow("paged", metrics=metrics(token_share=share))]
        write(tmp_path / name / "chat", rows, config={"workload.name": "chat"})
    status, out, _ = run(capsys, tmp_path / "old", tmp_path / "new")
    assert status == 1
    assert "could not compare: beam" in out


def test_tolerances_are_relative_or_absolute_and_the_last_counts(base, tmp_path, capsys):
    worse = metrics(token_share=0.49, preemptions=9)
    new = write(tmp_path / "new", [ResultRow("paged", metrics=worse)])
    share, count = ("--tolerance", "token_share=2%"), ("--tolerance", "preemptions=2")
    assert run(capsys, base, new, *share, *count)[0] == 0
    assert run(capsys, base, new, *share)[0] == 1
    assert run(capsys, base, new, *count)[0] == 1
    assert run(capsys, base, new, "--tolerance", "*=50%")[0] == 0
    assert run(capsys, base, new, "--tolerance", "*=50%", "--tolerance", "token*=1%")[0] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("token_share", "write METRIC=5%"),
        ("token_shar=5%", "did you mean token_share"),
        ("token_share=five", "not a number"),
        ("token_share=-1%", "at least 0"),
        ("token_share=nan", "at least 0"),
    ],
)
def test_a_bad_tolerance_is_one_line(text, words, base, capsys):
    status, out, err = run(capsys, base, base, "--tolerance", text)
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "truncated or not JSON"),
        ("[1, 2]", "not a kv-harness summary"),
        ('{"schema_version": 0}', "older"),
        ('{"schema_version": 999}', "newer"),
        (None, "no such file"),
    ],
)
def test_an_unreadable_summary_is_one_line(content, words, base, tmp_path, capsys):
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    status, _, err = run(capsys, base, path)
    assert status == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_an_empty_directory_and_an_unfinished_job_are_one_line(base, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(capsys, base, tmp_path / "empty")[0] == 2
    write(tmp_path / "sweep" / "0")
    (tmp_path / "sweep" / "1" / ".hydra").mkdir(parents=True)
    (tmp_path / "sweep" / "1" / ".hydra" / "overrides.yaml").write_text("[]")
    status, _, err = run(capsys, base, tmp_path / "sweep")
    assert status == 2
    assert "no such file" in err


def test_exact_metrics_must_not_differ_between_repeats(base, tmp_path, capsys):
    write(tmp_path / "new" / "a")
    write(tmp_path / "new" / "b", [ResultRow("paged", metrics=metrics(steps=501))])
    status, out, _ = run(capsys, base, tmp_path / "new")
    assert status == 1
    assert "differs between repeats" in out


def test_a_baseline_whose_repeats_differ_cannot_be_compared_with(tmp_path, capsys):
    new = write(tmp_path / "new", [ResultRow("paged", metrics=metrics(steps=501))])
    for name, order in (("up", (500, 501)), ("down", (501, 500))):
        for repeat, steps in zip("ab", order, strict=True):
            write(tmp_path / name / repeat, [ResultRow("paged", metrics=metrics(steps=steps))])
        status, out, _ = run(capsys, tmp_path / name, new)
        assert status == 2
        assert "could not compare: a: the baseline's repeats differ: paged: steps" in out
        assert "REGRESSION" not in out


# -- metrics on a clock --------------------------------------------------------------------------


def test_single_samples_are_never_called(base, tmp_path, capsys):
    row = ResultRow("paged", metrics=metrics(allocator_us_per_step=5000.0))
    status, out, _ = run(capsys, base, write(tmp_path / "new", [row]), "--all")
    assert status == 0
    assert "1 and 1 samples" in out


def test_enough_repeats_find_a_slower_allocator(tmp_path, capsys):
    rng = np.random.default_rng(1)
    old = write_repeats(tmp_path / "old", rng.normal(50, 3, 8))
    new = write_repeats(tmp_path / "new", rng.normal(100, 6, 8))
    status, out, _ = run(capsys, old, new)
    assert status == 1
    assert "allocator_us_per_step" in out
    assert run(capsys, new, old)[0] == 0
    assert run(capsys, old, new, "--tolerance", "allocator_us_per_step=150%")[0] == 0
    assert run(capsys, old, new, "--measured", "ignore")[0] == 0


def test_noise_is_not_called_twenty_times_out_of_twenty(tmp_path, capsys):
    rng = np.random.default_rng(2)
    for attempt in range(20):
        sides = [
            write_repeats(tmp_path / f"{attempt}{side}", rng.lognormal(4, 0.3, 8)) for side in "ab"
        ]
        assert run(capsys, *sides)[0] == 0


def test_another_machine_matters_to_clocks_only(tmp_path, capsys):
    here = write_repeats(tmp_path / "here", [50, 51, 52, 53, 54, 55])
    other = {"cpu_model": "Another CPU"}
    there = write_repeats(tmp_path / "there", [90, 91, 92, 93, 94, 95], environment=other)
    status, out, _ = run(capsys, here, there)
    assert status == 2
    assert "environment differs: cpu_model: A CPU -> Another CPU" in out
    assert run(capsys, here, there, "--measured", "ignore")[0] == 0
    single = write(tmp_path / "single", environment=other)
    assert run(capsys, here, single)[0] == 0


# -- formats -------------------------------------------------------------------------------------


def test_json_holds_every_finding(base, tmp_path, capsys):
    new = write(tmp_path / "new", [ResultRow("paged", metrics=metrics(token_share=0.25))])
    status, out, _ = run(capsys, base, new, "--format", "json")
    content = json.loads(out)
    assert content["exit_status"] == status == 1
    (found,) = [f for f in content["findings"] if f["verdict"] == "worse"]
    assert (found["case"], found["allocator"], found["metric"]) == ("beam", "paged", "token_share")
    assert found["change"] == pytest.approx(-0.5)
    assert {f["metric"] for f in content["findings"]} == {"status", *(m.name for m in METRICS)}


def test_markdown_and_junit_escape_names(tmp_path, capsys):
    from xml.etree import ElementTree

    name = "<b>|`x`\x07"
    old = write(tmp_path / "old", [ResultRow(name, metrics=metrics())])
    new = write(tmp_path / "new", [ResultRow(name, metrics=metrics(token_share=0.1))])
    status, out, _ = run(capsys, old, new, "--format", "markdown")
    assert status == 1
    assert "<b>" not in out
    assert "&lt;b&gt;\\|\\`x\\`" in out
    status, out, _ = run(capsys, old, new, "--format", "junit")
    root = ElementTree.fromstring(out)
    assert root.get("failures") == "1"
    assert len(root.findall(".//testcase")) == int(root.get("tests")) == len(METRICS) + 1
    assert root.find(".//failure").get("message").startswith("beam / <b>|`x`")


def test_output_goes_to_a_file(base, tmp_path, capsys):
    status, out, _ = run(capsys, base, base, "--output", tmp_path / "x.md", "--format", "markdown")
    assert (status, out) == (0, "")
    assert (tmp_path / "x.md").read_text().startswith("### ✅")
    status, _, err = run(capsys, base, base, "--output", tmp_path / "no" / "x.md")
    assert status == 2
    assert len(err.splitlines()) == 1
