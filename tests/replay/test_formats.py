"""Every client's file tells of the same four requests, and is read as the same."""

import json

import numpy as np
import pytest

from harness.replay.errors import ReplayError
from harness.replay.formats import read
from tests.replay.files import (
    FILES,
    SUMMARIES,
    TIMED,
    UNTIMED,
    WITHOUT_FAILURE,
    WITHOUT_GAPS,
    altered,
    measured,
)

#: Unix seconds in a float are exact to a quarter of a microsecond
CLOSE = {"rtol": 0, "atol": 1e-6}
GAPS = [[0.010, 0.012, 0.011], [0.011, 0.013], []]


@pytest.mark.parametrize("name", [*TIMED, *UNTIMED])
def test_the_requests_are_those_of_the_table(name):
    run = measured(name, **TIMED.get(name, {"kind": "drawn"}))
    assert run.index.tolist() == [0, 1, 2]
    assert run.prompt_tokens.tolist() == [12, 30, 8]
    assert run.output_tokens.tolist() == [4, 3, 1]
    np.testing.assert_allclose(run.ttft_s, [0.05, 0.06, 0.045], **CLOSE)
    np.testing.assert_allclose(run.e2e_s, [0.083, 0.084, 0.045], **CLOSE)
    if name in TIMED:
        np.testing.assert_allclose(run.arrival_s, [0.0, 0.2, 0.25], **CLOSE)
        assert run.span_s == pytest.approx(0.295, abs=1e-6)
    assert run.failed == (0 if name in WITHOUT_FAILURE else 1)
    if name in WITHOUT_GAPS:
        assert run.itls_s is None
    else:
        assert [gaps.tolist() for gaps in run.itls_s] == [pytest.approx(gaps) for gaps in GAPS]


def test_a_file_says_how_requests_were_sent():
    run = measured("vllm_bench_serve.json")
    assert (run.format, run.model, run.rate) == ("vllm bench serve", "example/model", 8.0)
    assert (run.max_concurrency, run.duration_s) == (None, 0.52)
    assert measured("guidellm.json").rate == 8.0
    genai = measured("genai_perf_profile_export.json", "words")
    assert (genai.model, genai.rate) == ("example/model", 8.0)


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_is_refused_with_what_would_write_the_records(name):
    with pytest.raises(ReplayError, match=r"--(save-detailed|output-details|export-level records)"):
        read(FILES / name)


@pytest.mark.parametrize("name", UNTIMED)
def test_arrivals_are_never_guessed(name):
    with pytest.raises(ReplayError, match=r"does not say when .* arrivals=drawn .*closed_loop con"):
        measured(name)


def test_prompts_are_never_guessed():
    with pytest.raises(ReplayError, match=r"prompt_tokens=N .* prompt_tokens=words"):
        measured("genai_perf_profile_export.json")
    assert measured("genai_perf_profile_export.json", "7").prompt_tokens.tolist() == [7, 7, 7]
    with pytest.raises(ReplayError, match="has the prompts' lengths itself"):
        measured("plain.csv", "7")


def test_a_server_s_count_of_prompt_tokens_is_taken(tmp_path):
    def with_usage(document):
        for request in document["experiments"][0]["requests"]:
            usage = {"choices": [], "usage": {"prompt_tokens": 99, "completion_tokens": 5}}
            request["response_timestamps"].append(request["response_timestamps"][-1] + 10**9)
            request["response_outputs"].append({"response": f"data: {json.dumps(usage)}\n\n"})

    run = measured(altered(tmp_path, "genai_perf_profile_export.json", with_usage))
    assert run.prompt_tokens.tolist() == [99, 99, 99]
    assert run.output_tokens.tolist() == [5, 5, 5]
    np.testing.assert_allclose(run.e2e_s, [0.083, 0.084, 0.045])  # the usage is no token


def test_of_several_runs_one_is_chosen(tmp_path):
    one = json.loads((FILES / "vllm_bench_serve.json").read_text())
    other = {**one, "request_rate": "inf", "max_concurrency": 2}
    path = tmp_path / "appended.json"
    path.write_text(json.dumps(one) + "\n" + json.dumps(other, indent=1))
    with pytest.raises(ReplayError, match=r"holds 2 runs: choose one with run=1 \.\. run=2"):
        read(path)
    with pytest.raises(ReplayError, match="run=3, but the file holds 2"):
        read(path, 3)
    assert measured(path, run=1).rate == 8.0
    chosen = measured(path, run=2)
    assert (chosen.rate, chosen.max_concurrency) == (float("inf"), 2)
    assert any("closed loop of 2" in note for note in chosen.notes)


def test_without_latencies_the_end_is_the_sum_of_the_gaps(tmp_path):
    path = altered(tmp_path, "vllm_bench_serve.json", lambda d: d.pop("latencies") and None)
    np.testing.assert_allclose(measured(path).e2e_s, [0.083, 0.084, 0.045])


def test_bundled_tokens_are_said(tmp_path):
    def bundle(document):
        document["itls"][0] = [0.010, 0.023]

    run = measured(altered(tmp_path, "vllm_bench_serve.json", bundle))
    assert any(note.startswith("1 of 4 requests have another number of gaps") for note in run.notes)
    assert run.output_tokens[0] == 4


def test_the_warmup_is_left_out_and_a_cancelled_request_failed(tmp_path):
    lines = (FILES / "aiperf_profile_export.jsonl").read_text().splitlines()
    first, second, *others = map(json.loads, lines)
    first["metadata"]["benchmark_phase"] = "warmup"
    second["metadata"]["was_cancelled"] = True
    path = tmp_path / "profile_export.jsonl"
    path.write_text("\n".join(map(json.dumps, (first, second, *others))))
    run = measured(path)
    assert run.prompt_tokens.tolist() == [8]
    assert run.failed == 2
    assert "1 requests of the warmup were left out" in run.notes


def test_units_are_those_of_the_file(tmp_path):
    def in_seconds(document):
        metric = document["metrics"]["request_latency"]
        metric["value"], metric["unit"] = 0.083, "sec"

    path = altered(tmp_path, "aiperf_profile_export.jsonl", in_seconds)
    assert measured(path).e2e_s.tolist() == [0.083]
    path = altered(
        tmp_path,
        "aiperf_profile_export.jsonl",
        lambda d: d["metrics"]["request_latency"].update(unit="fortnights"),
    )
    with pytest.raises(ReplayError, match=r"request_latency is in 'fortnights'; expected one of"):
        measured(path)


def test_requests_are_put_in_order_of_their_start(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "# mine\nttft_s,e2e_s,arrival_s,prompt_tokens,output_tokens,host\n"
        "0.06,0.084,100.2,30,3,a\n0.05,0.083,100.0,12,4,b\n0,0,90,1,0,failed\n"
    )
    run = measured(path)
    assert run.arrival_s.tolist() == pytest.approx([0.0, 0.2])
    assert run.prompt_tokens.tolist() == [12, 30]
    assert run.index.tolist() == [1, 0]
    assert any("put in order of their start" in note for note in run.notes)
