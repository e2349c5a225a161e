"""The sentence at the top: which allocator, and why."""

import pytest

from harness.report.collection import Collection, Run
from harness.report.load import ReportError, load_collection
from harness.report.sweeps import curve_lines, knob_lines
from harness.report.verdict import verdicts
from harness.results import ResultRow
from harness.results.runlog import LIMITS
from tests.report.runs import config, sweep, write


def row(name, tokens_per_s, latency_s=0.05, **metrics):
    values = {
        "output_tokens_per_s": tokens_per_s, "normalized_latency_mean_s": latency_s,
        "mean_batch": tokens_per_s / 100, "token_share": 0.5, "reserved_share": 0.1,
        "internal_share": 0.1, "external_share": 0.1, "ttft_p50_s": 1.0, "preemptions": 0,
        "finished_requests": 100, "sharing_saved": 0.0, "requests_per_s": 1.0,
    }  # fmt: skip
    return ResultRow(name, metrics={**values, **metrics})


def lone(tmp_path, *rows):
    run = Run("run", tmp_path, config(), {}, list(rows))
    return verdicts(Collection([run], {}))


def test_the_fastest_is_chosen_with_its_numbers(tmp_path):
    said = lone(tmp_path, row("paged", 800, token_share=0.9), row("contiguous_max", 200))
    assert said[0].startswith("Take paged: 800 output tokens/s, 4.0 times contiguous_max")
    assert "runs 8 requests at once where contiguous_max runs 2" in said[0]
    assert "75\u00a0% of the memory that is not idle holds live KV, against 62\u00a0%" in said[0]


def test_an_idealised_winner_is_named_as_that_and_not_recommended(tmp_path):
    said = lone(tmp_path, row("contiguous_oracle", 900), row("paged", 800), row("virtual", 400))
    assert "contiguous_oracle leads with 900 output tokens/s, but it is an idealised" in said[0]
    assert said[1].startswith("Of those that can be built, take paged: 800 output tokens/s")
    assert "2.0 times virtual" in said[1]


def test_where_all_keep_up_latency_decides(tmp_path):
    said = lone(tmp_path, row("paged", 500, 0.05), row("virtual", 502, 0.10))
    assert said[0].startswith("Take paged: all serve about 500 output tokens/s")
    assert "virtual needs 2.0 times as long" in said[0]
    any_will_do = lone(tmp_path, row("paged", 500, 0.05), row("virtual", 500, 0.05))
    assert "any will do" in any_will_do[0]


def test_what_speaks_against_the_choice_is_said(tmp_path):
    slow_first = row("paged", 800, ttft_p50_s=2.0, preemptions=40)
    said = lone(tmp_path, slow_first, row("virtual", 400, ttft_p50_s=1.0))
    assert said[1].startswith("Against it: the median first token comes sooner with virtual")
    assert "preempts 40 times for 100 requests" in said[1]


def test_limits_on_requests_are_answered_and_who_serves_more_within_them(tmp_path):
    def good(rate, share):
        return {"goodput_requests_per_s": rate, "good_share": share}

    slo = {"ttft_s": 1.0, "itl_s": 0.05, "tpot_s": None, "e2e_s": None}
    rows = [
        row("paged", 800, **good(0.5, 0.25)),
        row("virtual", 400, **good(0.75, 0.5)),
        row("contiguous_oracle", 300, **good(1.5, 1.0)),
    ]
    said = verdicts(Collection([Run("run", tmp_path, {**config(), "slo": slo}, {}, rows)], {}))
    assert said[1] == (
        "Requests/s within slo.ttft_s=1 and slo.itl_s=0.05: contiguous_oracle 1.5 "
        "(100\u00a0% of all), virtual 0.75 (50\u00a0% of all), paged 0.5 (25\u00a0% of all)."
    )
    assert said[2] == "Against it: virtual serves more requests within the limits."
    alone = Run("run", tmp_path, {**config(), "slo": slo}, {}, rows[:1])
    assert verdicts(Collection([alone], {}))[1].endswith(": paged 0.5 (25\u00a0% of all).")
    for none in (None, "x", {"ttft_s": None, "itl_s": "x"}):
        without = Run("run", tmp_path, {**config(), "slo": none}, {}, rows)
        said = verdicts(Collection([without], {}))
        assert not any(text.startswith("Requests/s within") for text in said)


def limited(**shares):
    found = {f"limited_by_{limit}_share": 0.0 for limit in LIMITS}
    found |= {f"limited_by_{limit}_share": share for limit, share in shares.items()}
    return {**found, "time_linear_share": 0.6, "time_attention_share": 0.2, "time_maps_share": 0.1}


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"sequences": 0.61, "memory": 0.2}, "paged is held back by engine.max_num_seqs=256 in 61"),
        ({"tokens": 0.5, "nobody": 0.3}, "paged is held back by engine.max_num_batched_tokens in"),
        ({"memory": 0.9, "preemption": 0.1}, "paged is held back by memory in 90"),
        ({"preemption": 0.5}, "paged is held back by preemption in 50"),
        ({"policy": 0.8, "nobody": 0.2}, "engine=static keeps others out of paged in 80"),
        ({"nobody": 1.0}, "Nobody waits for paged in 100"),
    ],
)
def test_what_holds_the_choice_back_is_said_and_where_its_time_goes(shares, words, tmp_path):
    rows = [row("paged", 800, **limited(**shares)), row("virtual", 400, **limited(memory=1.0))]
    engine = {"max_num_seqs": 256, "max_num_batched_tokens": None}
    run = Run("run", tmp_path, {**config(), "engine": engine}, {}, rows)
    said = verdicts(Collection([run], {}))[1]
    assert said.startswith(words)
    assert said.endswith("its time goes to linear layers (60\u00a0%) and attention (20\u00a0%).")
    alone = Run("run", tmp_path, {**config(), "engine": engine}, {}, rows[:1])
    assert verdicts(Collection([alone], {}))[1] == said


def test_a_run_of_before_limits_were_noted_has_no_such_sentence(tmp_path):
    said = lone(tmp_path, row("paged", 800), row("virtual", 400))
    assert not any("held back" in text or "waits" in text for text in said)


def test_rows_that_put_out_nothing_are_told_apart_by_latency(tmp_path):
    said = lone(tmp_path, row("paged", 0.0, 0.05), row("virtual", 0.0, 0.10))
    assert said[0].startswith("Take paged: all serve about 0 output tokens/s")


def test_one_row_and_none(tmp_path):
    assert "nothing to compare it with" in lone(tmp_path, row("paged", 10))[0]
    failed = lone(tmp_path, ResultRow("paged", "oom", "too small"))
    assert failed == ["No allocator could serve this workload.", "paged: too small"]
    stopped = lone(tmp_path, ResultRow("paged", "error", "interrupted before it ended"))
    assert stopped == ["The run was interrupted before any allocator had ended."]


def test_a_knob_sweep_names_the_best_setting_and_the_price_of_the_worst(tmp_path):
    speed = {8: 1.0, 16: 0.99, 64: 0.8}
    option = "allocators.paged.block_size"
    path = sweep(tmp_path / "s", option, [8, 16, 64], lambda size: {"paged": speed[size]})
    (said,) = verdicts(load_collection([path]))
    assert said.startswith("Take paged with block_size 8: ")
    assert "(16 within 2 %)" in said
    assert said.endswith("block_size 64 costs 20\u00a0%.")


def test_a_swept_acceptance_rate_is_a_knob_and_no_load(tmp_path):
    speed = {0.5: 0.5, 0.9: 1.0}
    option = "sampling.acceptance_rate"
    path = sweep(tmp_path / "s", option, [0.5, 0.9], lambda rate: {"paged": speed[rate]})
    collection = load_collection([path])
    (said,) = verdicts(collection)
    assert said.startswith("Take paged with acceptance_rate 0.9: ")
    assert curve_lines(collection) == []
    assert knob_lines(collection)


def test_a_rate_sweep_says_how_far_each_holds(tmp_path):
    def speeds(rate):
        return {"paged": 1.0, "contiguous_max": 1.0 if rate < 2 else 0.2}

    said = verdicts(load_collection([sweep(tmp_path / "s", "workload.rate", [1, 2], speeds)]))
    assert said[0].startswith("paged holds normalized latency under")
    assert "up to 2 requests/s; contiguous_max 1." in said[0]
    assert said[1].startswith("At 2 requests/s: Take paged")


def test_several_runs_are_told_apart_by_what_differs(tmp_path):
    speeds = {"paged": 2.0, "virtual": 1.0}
    one = write(tmp_path / "one", speeds, workload="beam")
    two = write(tmp_path / "two", speeds, workload="chat")
    collection = load_collection([one, two])
    assert list(collection.headers) == ["workload.name"]
    assert [said.partition(":")[0] for said in verdicts(collection)] == [
        "Take paged",
        "workload.name beam",
        "workload.name chat",
    ]
    same = load_collection([one, write(tmp_path / "again", speeds)])
    assert [run.label(same.headers) for run in same.runs] == ["one", "again"]


def runs_of(tmp_path, header, *runs):
    """Return a collection of runs that differ in one option, numbered from 0."""
    made = [
        Run(str(i), tmp_path, config(), {header: str(i)}, list(rows)) for i, rows in enumerate(runs)
    ]
    return Collection(made, {header: header})


def test_one_allocator_for_several_models_and_what_others_keep_for_nothing(tmp_path):
    def each(uniform, share):
        return row("paged", 800), row("uniform", uniform, expired_share=share), row("split", 799)

    said = verdicts(runs_of(tmp_path, "model.name", each(400, 0.3), each(200, 0.4)))
    assert said[0] == (
        "Take paged: it serves most output tokens/s in all 2 runs, or as much as any; 1.00 times "
        "those of split, and 2.0 to 4.0 times those of uniform (up to 40\u00a0% more of its pool "
        "is what nothing reads again)."
    )
    assert "uniform keeps 30\u00a0% in what nothing will read again" in said[1]


def test_no_common_choice_where_none_is_near_the_best_everywhere(tmp_path):
    one = row("paged", 800), row("virtual", 400), row("contiguous_oracle", 900)
    near = row("paged", 380), row("virtual", 400), row("contiguous_oracle", 900)
    far = row("paged", 200), row("virtual", 400), row("contiguous_oracle", 900)
    assert verdicts(runs_of(tmp_path, "model.name", one, near))[0].startswith(
        "Take paged: it serves at most 5.0\u00a0% fewer output tokens/s than the best in all 2 runs"
    )
    said = verdicts(runs_of(tmp_path, "model.name", one, near))
    assert said[2].endswith(" paged serves 5.0\u00a0% less."), "the run has another best"
    assert not said[1].endswith("less.")
    assert not verdicts(runs_of(tmp_path, "model.name", one, far))[0].startswith("Take paged: it")
    # What a user turns is no kind of run.
    assert not verdicts(runs_of(tmp_path, "engine.policy", one, near))[0].startswith(
        "Take paged: it"
    )


def test_the_common_choice_is_beside_another_that_is_as_good_and_faster(tmp_path):
    slow = row("paged", 800, normalized_latency_mean_s=0.11)
    each = [(slow, row("split", 796, normalized_latency_mean_s=0.1), row("virtual", 400))]
    other = [(slow, row("split", 400), row("virtual", 400))]
    said = verdicts(runs_of(tmp_path, "model.name", *each, *other))
    assert said[0].startswith("Take paged: ")
    assert "Take split: " in said[1]
    assert said[1].endswith(" paged serves as much, at 1.10 times the latency.")
    assert "Take paged: " in said[2]


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 0}', None])
def test_an_unreadable_run_is_one_line(content, tmp_path):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ReportError) as error:
        load_collection([tmp_path])
    assert "\n" not in str(error.value)


def test_measured_beside_simulated_is_said_by_the_label(tmp_path):
    import json

    for name in ("a/run", "b/run"):
        write(tmp_path / name, {"paged": 1.0})
    summary = json.loads((tmp_path / "b" / "run" / "summary.json").read_text())
    config = summary["config"]
    config["executor"] = {"name": "model", "device": "cpu", "dtype": "float32", "backend": "cpu"}
    config["model"]["name"] = "tiny"
    (tmp_path / "b" / "run" / "summary.json").write_text(json.dumps(summary))
    collection = load_collection([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    labels = [run.label(collection.headers) for run in collection.runs]
    assert labels == ["a/run, simulated", "b/run, measured"]


def test_a_job_that_cannot_be_read_makes_no_sweep_a_mixed_one(tmp_path):
    import json

    from harness.report.build import default_title
    from harness.report.sections import main_columns

    path = sweep(tmp_path / "s", "allocators.paged.block_size", [8, 16, 32], lambda _: {"paged": 1})
    for job in ("0", "1"):
        file = path / job / "summary.json"
        summary = json.loads(file.read_text())
        summary["config"]["executor"] = {"name": "model", "device": "cpu"}
        summary["config"]["hardware"]["count"] = 2
        file.write_text(json.dumps(summary))
    (path / "2" / "summary.json").write_text("{")
    collection = load_collection([path])
    assert list(collection.headers.values()) == ["block_size"]
    assert "simulated" not in " ".join(verdicts(collection))
    assert default_title(collection) == "beam, OPT-13B on A CPU"
    assert "Output a GPU" not in [column.title for column in main_columns(collection)]
    assert [run.clock is None for run in collection.runs] == [False, False, True]


def test_a_folder_that_is_no_run_is_an_error_of_reports(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.results.sweep.MOST_OTHER_FOLDERS", 2)
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(ReportError, match="neither a run nor a sweep"):
        load_collection([tmp_path])


def test_output_is_divided_by_the_gpus_where_their_number_varies(tmp_path):
    import json

    from harness.report.sections import main_columns, result_lines

    path = sweep(tmp_path / "s", "hardware.count", [1, 4], lambda count: {"paged": count})
    titles = [column.title for column in main_columns(load_collection([path]))]
    assert "Output a GPU" not in titles
    for job, count in (("0", 1), ("1", 4)):
        file = path / job / "summary.json"
        summary = json.loads(file.read_text())
        summary["config"]["hardware"]["count"] = count
        file.write_text(json.dumps(summary))
    collection = load_collection([path])
    columns = main_columns(collection)
    (at,) = (i for i, column in enumerate(columns) if column.title == "Output a GPU")
    lines = result_lines(collection, columns)
    assert lines[1].cells[0]["value"] == 4 * lines[1].cells[at]["value"]
    assert lines[0].cells[0]["value"] == lines[0].cells[at]["value"]
