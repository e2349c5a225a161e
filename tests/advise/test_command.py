"""The command: what it writes, what it refuses, that no run is made twice, and Ctrl-C."""

import json
from contextlib import chdir

import pytest

from harness.advise.__main__ import main
from harness.advise.flags import SERVERS, flags, missing
from harness.advise.knobs import KNOBS
from tests.advise.inside import SMALL, Inside, fixed

ONE = (
    *fixed(96, 1),
    *SMALL,
    *("engine.max_num_seqs=1", "allocator=[paged]", "search=[watermark]"),
)


@pytest.fixture
def inside(monkeypatch):
    """Let the command make its runs in this process, and keep none."""

    class Runner(Inside):
        def __init__(self, jobs, kept):
            super().__init__()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    monkeypatch.setattr("harness.capacity.runner.Runner", Runner)
    return Runner


def run(capsys, *arguments, folder):
    with chdir(folder):
        status = main([*ONE, *arguments])
    return status, *capsys.readouterr()


def test_an_answer_is_printed_and_written(tmp_path, capsys, inside):
    asked = ("slo.ttft_mean_s=0.1", "out=here", "rate=30", "price_per_gpu_hour=2")
    status, out, err = run(capsys, *asked, folder=tmp_path)
    assert status == 0, err
    found = json.loads((tmp_path / "here" / "advice.json").read_text())
    assert found["settings"] == {}
    assert "kv_dtype" not in found["values"]
    assert found["advice"] == out.splitlines()[0]
    assert "paged with its defaults is recommended" in found["advice"]
    assert "watermark (0.01 0.05 no worse than 0.0)" in found["advice"]
    fleet = found["fleet"]
    assert (
        fleet["gpus"] * fleet["sure_a_server"] >= 33 > (fleet["gpus"] - 1) * fleet["sure_a_server"]
    )
    assert fleet["runs_held"] == fleet["runs"] == 3
    assert {each["name"] for each in found["other_workloads"]} >= {
        "bursts (4 x the variance of gaps)",
        "a common prefix of 512 tokens",
        "kernels at 85% of their speed",
    }
    page = (tmp_path / "here" / "advice.html").read_text()
    assert "is recommended" in page
    assert "http" not in page.replace("Content-Security-Policy", "").replace("http-equiv", "")


def test_another_type_of_kv_is_said_to_change_what_a_model_says(tmp_path, capsys, inside):
    asked = (*fixed(400, 100), *SMALL, "allocator=[paged]", "kv_memory_gib=0.3", "out=here")
    with chdir(tmp_path):
        assert main([*asked, "search=[kv_dtype]", "kv_dtypes=[auto,fp8]"]) == 0
    found = json.loads((tmp_path / "here" / "advice.json").read_text())
    assert found["settings"] == {"kv_dtype": "fp8"}
    assert found["kv_dtypes"] == ["auto", "fp8"]
    assert "outputs may differ" in found["advice"]
    assert "check its accuracy on your own tasks" in found["advice"]
    assert " --kv-cache-dtype fp8 " in found["servers"][0]
    assert " --kv-cache-dtype fp8_e4m3 " in found["servers"][1]
    assert "kernels that read fp8 no faster" in [each["name"] for each in found["other_workloads"]]
    page = (tmp_path / "here" / "advice.html").read_text()
    assert "its accuracy is to be checked" in page


def test_ctrl_c_prints_what_was_found(tmp_path, capsys, monkeypatch, inside):
    calls = []
    observe = inside.observe

    def interrupted(self, probes):
        calls.append(probes)
        raise KeyboardInterrupt

    monkeypatch.setattr(inside, "observe", interrupted)
    status, out, err = run(capsys, "slo.ttft_mean_s=0.1", "out=here", folder=tmp_path)
    assert status == 130
    assert "Nothing is recommended yet: on one seed defaults sustains" in out
    assert "interrupted; what was run is kept in" in err
    assert not json.loads((tmp_path / "here" / "advice.json").read_text())["complete"]
    assert observe is not interrupted


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("slo.ttft_p95_s=1",), "slo.ttft_p95_s: no such limit"),
        (("slo.ttft_p50_s=2", "slo.ttft_p99_s=1"), "contradict"),
        (("slo.ttft_mean_s=1e-6",), "no setting meets the limits, of 3 that were tried"),
        (("rate=-1",), "rate must be a positive number"),
        (("rate=1", "workload.rate=2"), "give rate= or workload.rate= once"),
        (("workload.concurrency=2",), "a closed loop has no rate"),
        (("seeds=2",), "seeds must be at least 3, got 2"),
        (("kv_dtypes=[auto,int3]",), "kv_dtypes must be of auto, fp32, fp16, bf16, fp8"),
        (("kv_dtypes=[fp8]",), "kv_dtypes must hold auto"),
        (("kv_dtypes=fp8",), "kv_dtypes must be a list, as in [A,B], got 'fp8'"),
        (("kv_dtypes=[auto,fp8]", "kv_dtype=fp8"), "kv_dtype is set by an option"),
        (("kv_dtypes=[auto,fp8]", "model.kv_dtype=fp8"), "kv_dtype is set by an option"),
        (
            ("kv_dtypes=[auto,int8]", "model=deepseek-v2-lite", "hardware=h200"),
            "a latent layer has neither",
        ),
        (("allocators.paged.watermark=0.01",), "search=watermark: it is set by an option"),
        (("hydra.run.dir=here",), "hydra.run.dir is an option of python -m harness; out=DIR"),
        (("kept=/dev/null",), "kept=/dev/null is a file; expected a directory"),
        (("engine=null",), "engine=null leaves engine out; choose one of chunked, "),
        (("engine.max_seqs=2",), "unknown option engine.max_seqs"),
        (("-m",), "-m: expected OPTION=VALUE"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(tmp_path, capsys, inside, arguments, says):
    status, out, err = run(capsys, *arguments, folder=tmp_path)
    assert (status, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert not list(tmp_path.glob("*/runs/advise-2*"))


def test_an_unknown_knob_and_nothing_to_search_are_one_line(tmp_path, capsys, inside):
    assert main([*ONE[:-1], "search=[blocks]"]) == 2
    assert "search: blocks is no knob; there are allocator, gpus, " in capsys.readouterr().err
    assert main([*ONE[:-1], "search=[kv_dtype]"]) == 2
    assert "search=kv_dtype: kv_dtypes allows auto alone" in capsys.readouterr().err
    # More GPUs would do, but their number is not searched.
    assert main([*ONE, "model=llama-3-70b", "hardware=h100-80gb"]) == 2
    assert "Llama-3-70B needs 131.4 GiB for its weights" in capsys.readouterr().err
    assert main([*ONE[:-1], "search=[]"]) == 2
    assert "nothing is left to be searched" in capsys.readouterr().err
    assert main(["slo.ttft_p99_s=1"]) == 2
    assert "+workload=NAME is needed, one of agentic, alpaca" in capsys.readouterr().err


def test_flags_are_of_knobs_that_there_are():
    names = {knob.name for knob in KNOBS}
    assert all(set(known) <= names for known in SERVERS.values())
    values = {"max_num_seqs": "512", "prefix_index": "none", "gpus": "2", "watermark": "0.0"}
    assert flags("vLLM", values, frozenset()) == [
        "--max-num-seqs 512",
        "--no-enable-prefix-caching",
        "--tensor-parallel-size 2",
    ]
    kept = [flags(server, {"kv_dtype": "int8"}, frozenset()) for server in ("vLLM", "SGLang")]
    assert kept == [["--kv-cache-dtype int8_per_token_head"], []]
    assert missing("SGLang", {"kv_dtype": "int8"}) == ["kv_dtype=int8"]
    assert missing("SGLang", {"kv_dtype": "auto"}) == []
    assert flags("SGLang", values, frozenset({"prefix_index"})) == [
        "--max-running-requests 512",
        "--tp-size 2",
    ]
