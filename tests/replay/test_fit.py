"""A profile is found again from what it simulated, on the half that was not fitted."""

import json

import numpy as np
import pandas as pd
import pytest

from harness.replay.__main__ import main
from harness.replay.errors import ReplayError
from harness.replay.fit import CONSTANTS, fit, halves, with_software
from harness.replay.simulate import compose_replay, prepare_replay, simulate
from tests.replay.files import measured

SERVER = ("model=yi-6b", "hardware=a100-80gb")
TRUE = ("software.step_us=4000", "software.sequence_us=60", "software.request_us=20000")


def write_csv(path, n=80, noise=0.0):
    """Requests as a server of the constants TRUE serves them."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "arrival_s": np.cumsum(rng.exponential(0.1, n)).round(6),
            "prompt_tokens": rng.integers(10, 900, n),
            "output_tokens": rng.integers(2, 60, n),
            "ttft_s": 1.0,
            "e2e_s": 2.0,
        }
    )
    table.to_csv(path, index=False)
    composed = compose_replay([*SERVER, *TRUE])
    served = simulate(prepare_replay(str(path), measured(path), composed))
    factor = np.exp(noise * rng.standard_normal(n))
    table["ttft_s"], table["e2e_s"] = served.ttft_s * factor, served.e2e_s * factor
    table.to_csv(path, index=False)
    return path


def fitted(path, *options):
    run, composed = measured(path), compose_replay([*SERVER, *options])
    return fit(
        str(path), run, composed, prepare_replay(str(path), run, composed), lambda line: None
    )


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A file without noise, and what is fitted to it."""
    path = write_csv(tmp_path_factory.mktemp("mine") / "mine.csv")
    return path, fitted(path)


def test_the_second_half_is_right_after_the_fit(tmp_path):
    found = fitted(write_csv(tmp_path / "mine.csv", noise=0.05))
    assert len(found.fitted) + len(found.checked) == 80
    assert not set(found.fitted) & set(found.checked)
    before, after = found.errors["checked"]["before"], found.errors["checked"]["after"]
    assert before["tpot"] < -0.2
    assert abs(after["tpot"]) < 0.03
    assert abs(after["e2e"]) < 0.04
    assert abs(after["ttft"]) < 0.1
    assert after["single_e2e"] < 0.12


def test_it_is_the_same_every_time_and_what_was_simulated(mine):
    path, one = mine
    other = fitted(path)
    assert one.software == other.software
    run, composed = measured(path), compose_replay([*SERVER, *one.options])
    by_options = simulate(prepare_replay(str(path), run, composed))
    start = prepare_replay(str(path), run, compose_replay(SERVER))
    by_fit = simulate(with_software(start, one.software))
    np.testing.assert_array_equal(by_options.e2e_s, by_fit.e2e_s)


def test_latencies_of_the_second_half_are_not_looked_at(mine, tmp_path):
    (known, first), path = mine, tmp_path / "mine.csv"
    table = pd.read_csv(known)
    late = table.arrival_s > table.arrival_s.iloc[[0, -1]].mean()
    table.loc[late, ["ttft_s", "e2e_s"]] *= 3.0
    table.to_csv(path, index=False)
    second = fitted(path)
    assert first.software == second.software
    assert abs(second.errors["checked"]["after"]["e2e"]) > 0.5


def test_the_halves_are_by_time_or_by_order(mine):
    path, _ = mine
    run = measured(path)
    first, second = halves(run, np.arange(80))
    assert run.arrival_s[first].max() <= run.arrival_s[-1] / 2 < run.arrival_s[second].min()
    at_once = measured(path, kind="all_at_once")
    assert [len(half) for half in halves(at_once, np.arange(80))] == [40, 40]
    with pytest.raises(ReplayError, match=r"at least 20 requests in each half .* got 15 and 15"):
        halves(at_once, np.arange(30))


def test_a_constant_at_its_bound_is_said(tmp_path):
    path = write_csv(tmp_path / "mine.csv")
    table = pd.read_csv(path)
    table[["ttft_s", "e2e_s"]] /= 40.0  # no software makes a GPU that fast
    table.to_csv(path, index=False)
    lines = fitted(path).at_bounds
    assert any("software.weight_read_slowdown ends at 0.7" in line for line in lines)


def test_the_command_reports_on_the_second_half(tmp_path, capsys):
    path, out = write_csv(tmp_path / "mine.csv"), tmp_path / "out"
    assert main([f"measured={path}", *SERVER, "fit=true", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert "on which nothing was fitted" in printed
    record = json.loads((out / "replay.json").read_text())
    kept = record["fit"]["checked_requests"]
    assert record["compared_requests"] == kept == len(pd.read_csv(out / "requests.csv"))
    means = {m["quantity"]: m["error"] for m in record["metrics"] if m["statistic"] == "mean"}
    assert means["e2e"] == pytest.approx(record["fit"]["errors"]["checked"]["after"]["e2e"])
    profile = (out / "software.yaml").read_text()
    for constant in CONSTANTS:
        assert f"\n{constant.name}: " in profile


def test_metrics_that_cannot_be_read_are_refused_before_the_fit(mine, tmp_path, capsys):
    path, _ = mine
    assert main([f"measured={path}", *SERVER, "fit=true", f"metrics={tmp_path}/absent"]) == 2
    refused = capsys.readouterr().err
    assert "absent: no such file" in refused
    assert "simulation" not in refused


def test_a_half_costs_no_simulation_of_its_own(mine, monkeypatch):
    path, _ = mine
    simulated = []

    def counting(prepared):
        simulated.append(len(prepared.requests))
        return simulate(prepared)

    monkeypatch.setattr("harness.replay.fit.simulate", counting)
    found = fitted(path)
    assert len(simulated) == found.simulations + 2  # the whole run, before and after
