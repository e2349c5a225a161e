"""Measurements of real servers that took no part in a fit."""

import pytest

from harness.replay.fit import fit
from harness.replay.run import replayed
from harness.replay.simulate import compose_replay, prepare_replay
from tests.places import ROOT
from tests.replay.files import measured

REQUESTS = ROOT / "results/published/requests"
A100 = ("model=llama-3-70b", "hardware=a100-40gb", "hardware.count=8")


def prepared(path, options):
    run, composed = measured(path), compose_replay(options)
    return str(path), run, composed, prepare_replay(str(path), run, composed)


def test_constants_of_one_rate_hold_at_another():
    """Fitted at 1 request/s, checked at 4/s, which is below saturation too."""
    found = fit(*prepared(REQUESTS / "llmk8s-70b-tp8-01.csv", A100), lambda line: None)
    assert abs(found.errors["checked"]["after"]["e2e"]) < 0.03
    path, run, _, other = prepared(REQUESTS / "llmk8s-70b-tp8-04.csv", [*A100, *found.options])
    errors = {(c.quantity, c.statistic): c.error for c in replayed(path, run, other).compared}
    assert abs(errors["e2e", "mean"]) < 0.1
    assert abs(errors["tpot", "mean"]) < 0.1
    assert abs(errors["requests", "rate"]) < 0.03


@pytest.mark.parametrize("path", sorted(REQUESTS.glob("*.csv")), ids=lambda path: path.stem)
def test_the_published_requests_are_those_of_their_row(path):
    import pandas as pd

    rows = pd.read_csv(REQUESTS.parent / "servers.csv").set_index("id")
    row, run = rows.loc[path.stem], measured(path)
    assert len(run) == row.requests
    assert run.prompt_tokens.mean() == pytest.approx(row.prompt_tokens_mean, rel=1e-4)
    assert run.output_tokens.mean() == pytest.approx(row.output_tokens_mean, rel=1e-4)
    assert 1e3 * run.ttft_s.mean() == pytest.approx(row.ttft_mean_ms, rel=1e-4)
    assert 1e3 * run.e2e_s.mean() == pytest.approx(row.e2e_mean_ms, rel=1e-4)
    assert len(run) / run.span_s == pytest.approx(row.requests_per_s, rel=0.01)
