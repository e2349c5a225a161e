"""Choosing tokens: nucleus sampling against an obvious loop, and its edges."""

import numpy as np
import pytest
import torch

from harness.engine.config import SamplingSpec
from harness.executors.model.sampling import Sampler, nucleus


def slow(logits, temperature, top_p, draw):
    """Walk down the tokens from the likeliest, twice."""
    shares = np.exp((logits - logits.max()) / temperature)
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")
    kept, mass = [], 0.0
    for token in order:
        if kept and mass >= top_p:
            break
        kept.append(token)
        mass += shares[token]
    at, passed = draw * mass, 0.0
    for token in kept:
        passed += shares[token]
        if at < passed:
            return token
    return kept[-1]


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_nucleus_is_what_a_loop_gives(temperature, top_p):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (400, 37)).astype(np.float32)
    draws = rng.random(400)
    found = nucleus(torch.as_tensor(logits), temperature, top_p, draws)
    expected = [
        slow(row.astype(np.float64), temperature, top_p, u)
        for row, u in zip(logits, draws, strict=True)
    ]
    assert (found == expected).mean() > 0.99  # sums may round apart at a boundary
    assert len(set(found.tolist())) > (5 if top_p > 0.1 else 1)


@pytest.mark.parametrize("temperature", [1e-310, 1e-300, 1e-3, 1e300])
@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2**-53])
def test_extreme_temperatures_give_a_token(temperature, draw):
    logits = torch.tensor([[1.0, 60.0, -5.0]])
    token = nucleus(logits, temperature, 1.0, np.array([draw]))
    assert token.tolist() == [1] if temperature < 1 else 0 <= int(token[0]) < 3


def test_a_tiny_top_p_is_greedy():
    logits = torch.randn((50, 11))
    found = nucleus(logits, 1.0, 1e-300, np.full(50, 0.999))
    assert found.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("mode", ["greedy", "parallel", "beam"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error_of_one_line(mode, value):
    logits = torch.zeros((1, 5))
    logits[0, 3] = value
    with pytest.raises(ArithmeticError, match="not finite"):
        Sampler(SamplingSpec(mode), 0).choose(logits, [slice(0, 1)], [], [])
