"""The command: the very requests are simulated, compared and written."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.errors import InputError
from harness.replay.__main__ import main
from harness.replay.compared import compare, sides
from harness.replay.run import replayed
from harness.replay.simulate import compose_replay, prepare_replay, simulate
from tests.replay.files import FILES, TIMED, altered, measured

SERVER = ("model=yi-6b", "hardware=a100-80gb")


def write_csv(path, n=60, seed=0, scale=1.0):
    """A measured file of requests that take `scale` times as long as is simulated."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(0.05, n))
    table = pd.DataFrame(
        {
            "arrival_s": arrival_s - arrival_s[0],
            "prompt_tokens": rng.integers(1, 900, n),
            "output_tokens": rng.integers(1, 120, n),
            "ttft_s": 0.1,
            "e2e_s": 5.0,
        }
    )
    table.to_csv(path, index=False)
    run = measured(path)
    simulated = simulate(prepare_replay(str(path), run, compose_replay(SERVER)))
    table["ttft_s"], table["e2e_s"] = scale * simulated.ttft_s, scale * simulated.e2e_s
    table.to_csv(path, index=False)
    return path


def run_command(*arguments, capsys):
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_what_was_simulated_has_no_error(tmp_path, capsys):
    path = write_csv(tmp_path / "ours.csv")
    out = tmp_path / "out"
    status, printed, _ = run_command(f"measured={path}", *SERVER, f"out={out}", capsys=capsys)
    assert status == 0
    assert "60 requests" in printed
    record = json.loads((out / "replay.json").read_text())
    errors = {(m["quantity"], m["statistic"]): m["error"] for m in record["metrics"]}
    assert len(errors) == 15
    assert max(map(abs, errors.values())) < 1e-9
    assert max(abs(part["difference_s"]) for part in record["parts"]) < 1e-9
    assert record["request_errors"] == pytest.approx({"ttft": 0.0, "e2e": 0.0}, abs=1e-9)
    assert (out / "replay.png").read_bytes().startswith(b"\x89PNG")
    requests = pd.read_csv(out / "requests.csv")
    given = pd.read_csv(path)
    np.testing.assert_allclose(requests.measured_e2e_s, given.e2e_s, atol=1e-6)
    np.testing.assert_allclose(requests.simulated_ttft_s, given.ttft_s, atol=1e-6)


def test_a_server_that_takes_twice_as_long_is_seen(tmp_path):
    path = write_csv(tmp_path / "slow.csv", scale=2.0)
    run = measured(path)
    found = replayed(str(path), run, prepare_replay(str(path), run, compose_replay(SERVER)))
    errors = {(c.quantity, c.statistic): c.error for c in found.compared}
    assert [errors[name, "mean"] for name in ("ttft", "tpot", "e2e")] == pytest.approx([-0.5] * 3)
    assert errors["e2e", "p99"] == pytest.approx(-0.5)
    spans_s = [side.span_s for side in found.sides]
    assert spans_s[1] < spans_s[0]
    assert errors["requests", "rate"] == pytest.approx(spans_s[0] / spans_s[1] - 1)
    total_s = sum(part.difference_s for part in found.parts)
    assert total_s == pytest.approx(found.sides[1].e2e_s.mean() - found.sides[0].e2e_s.mean())
    decode = next(part for part in found.parts if part.name == "decode")
    assert decode.simulated_s == pytest.approx(0.5 * decode.measured_s)


@pytest.mark.parametrize("name", TIMED)
def test_every_format_gives_what_its_plain_csv_gives(name, tmp_path):
    """Whatever wrote the requests, they are the same requests."""
    run, plain = measured(name, **TIMED[name]), measured("plain.csv")
    ours, theirs = (
        simulate(prepare_replay("x", each, compose_replay(SERVER))) for each in (run, plain)
    )
    for column in ("arrival_s", "ttft_s", "e2e_s", "queue_s"):
        np.testing.assert_allclose(getattr(ours, column), getattr(theirs, column), atol=1e-6)
    assert ours.rows.tolist() == [0, 1, 2]


def test_a_closed_loop_waits_for_simulated_ends():
    run = measured("plain.csv", kind="closed_loop", concurrency=1)
    simulated = simulate(prepare_replay("x", run, compose_replay(SERVER)))
    ends_s = simulated.arrival_s + simulated.e2e_s
    np.testing.assert_allclose(simulated.arrival_s, [0.0, *ends_s[:-1]])


def test_requests_that_are_too_long_are_refused_or_left_out_of_both_sides():
    run = measured("plain.csv")
    with pytest.raises(
        InputError, match=r"x: 1 of 3 requests are longer than the 20 tokens .*skip"
    ):
        prepare_replay("x", run, compose_replay([*SERVER, "engine.max_len=20"]))
    composed = compose_replay([*SERVER, "engine.max_len=20", "workload.too_long=skip"])
    found = replayed("x", run, prepare_replay("x", run, composed))
    assert [side.prompt_tokens.tolist() for side in found.sides] == [[12, 8], [12, 8]]
    assert found.sides[0].ttft_s.tolist() == [0.05, 0.045]
    assert len(found.sides[1].ttft_s) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "measured=FILE is needed"),
        (("measured=absent.json", *SERVER), "absent.json: no such file"),
        (("measured=PLAIN", "hardware=l4"), "model=NAME is needed"),
        (("measured=PLAIN", "model=yi-6b"), "hardware=NAME is needed"),
        (("measured=PLAIN", "model=none", "hardware=l4"), "model=none: no such option"),
        (("measured=PLAIN", "model=null", "hardware=l4"), "model=null leaves model out; choose "),
        (("measured=PLAIN", *SERVER, "+workload=beam"), "the requests are those of the measured"),
        (("measured=PLAIN", *SERVER, "workload.rate=2"), "the requests are those of the measured"),
        (("measured=PLAIN", *SERVER, "allocator=[paged,virtual]"), "simulates one allocator"),
        (("measured=PLAIN", *SERVER, "executor=model"), "a replay is simulated"),
        (("measured=PLAIN", *SERVER, "sampling.mode=beam"), "greedy or speculative"),
        (("measured=PLAIN", *SERVER, "engine.max_num_seqs=x"), "could not be converted"),
        (("measured=PLAIN", *SERVER, "kv_tokens=8"), "the KV pool holds 8 tokens"),
        (("measured=PLAIN", *SERVER, "run=2"), "run=2, but the file holds 1"),
        (("measured=PLAIN", *SERVER, "hydra.run.dir=r"), "python -m harness; out=DIR says here"),
        (("measured=PLAIN", *SERVER, "-m"), "takes OPTION=VALUE alone"),
        (("measured=PLAIN", *SERVER, "nonsense=1"), "nonsense"),
        (("measured=PLAIN", *SERVER, "metrics=PLAIN"), "not a line of Prometheus text"),
        (("measured=PLAIN", *SERVER, "out=PLAIN"), "is a file; expected a directory"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path, capsys):
    plain = str(FILES / "plain.csv")
    arguments = [argument.replace("PLAIN", plain) for argument in arguments]
    if not any(argument.startswith("out=") for argument in arguments):
        arguments.append(f"out={tmp_path / 'out'}")
    status, _, complaint = run_command(*arguments, capsys=capsys)
    lines = [line for line in complaint.splitlines() if not line.startswith("note: ")]
    assert (status, len(lines)) == (2, 1)
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_failures_and_the_loop_are_said(tmp_path, capsys):
    path = altered(tmp_path, "vllm_bench_serve.json", lambda d: d.update(max_concurrency=2))
    out = tmp_path / "out"
    status, printed, notes = run_command(f"measured={path}", *SERVER, f"out={out}", capsys=capsys)
    assert status == 0
    assert "closed loop of 2 requests in flight: they arrive when the file says" in notes
    assert "1 of 4 requests failed" in notes
    assert "ITL mean, ms" in printed
    record = json.loads((out / "replay.json").read_text())
    assert record["measured"]["failed"] == 1
    assert record["notes"] == [line.removeprefix("note: ") for line in notes.splitlines()]


def test_help_names_every_option(capsys):
    from dataclasses import fields

    from harness.replay.options import ReplayOptions

    status, printed, _ = run_command("--help", capsys=capsys)
    assert status == 0
    assert [f.name for f in fields(ReplayOptions) if f"{f.name}=" not in printed] == []


def test_latencies_are_those_of_the_page():
    run = measured("vllm_bench_serve.json")
    true, ours = sides(run, simulate(prepare_replay("x", run, compose_replay(SERVER))))
    assert true.values("tpot").tolist() == pytest.approx([0.033 / 3, 0.024 / 2])
    assert true.values("itl").tolist() == pytest.approx([0.010, 0.012, 0.011, 0.011, 0.013])
    assert true.span_s == pytest.approx(0.295)
    assert len(ours.values("itl")) == 5
    rates = {c.quantity: c.measured for c in compare(true, ours) if c.statistic == "rate"}
    expected = {"requests": 3 / 0.295, "output tokens": 8 / 0.295, "all tokens": 58 / 0.295}
    assert rates == pytest.approx(expected)


def test_a_queue_ends_where_the_first_step_begins():
    run = measured("plain.csv", kind="all_at_once")
    one_by_one = compose_replay([*SERVER, "engine.max_num_seqs=1"])
    simulated = simulate(prepare_replay("x", run, one_by_one))
    ends_s = simulated.arrival_s + simulated.e2e_s
    np.testing.assert_allclose(simulated.queue_s, [0.0, *ends_s[:-1]])
