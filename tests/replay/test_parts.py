"""The first token's time is split into what a free server takes and what was waited."""

import numpy as np
import pytest

from harness.replay.compared import Side
from harness.replay.parts import error_parts, unloaded_s


def side(ttft_s, prompt_tokens, decode_s=1.0):
    n = len(ttft_s)
    return Side(None, prompt_tokens, np.full(n, 5), ttft_s, ttft_s + decode_s, None, None)


def requests(seed, n=400, busy=0.7):
    """Prompts, what each takes in a free server, and what it waits: most do, a few do not."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(10, 2000, n)
    free_s = 0.02 + 1e-4 * prompt
    wait_s = np.where(rng.random(n) < busy, rng.exponential(0.3, n), 0.0)
    return prompt, free_s, wait_s


@pytest.mark.parametrize("seed", range(5))
def test_the_line_is_that_of_a_free_server(seed):
    prompt, free_s, wait_s = requests(seed)
    np.testing.assert_allclose(unloaded_s(prompt, free_s + wait_s), free_s, rtol=0.01)


def test_a_tenth_of_the_requests_lies_below_the_line():
    rng = np.random.default_rng(0)
    prompt, ttft_s = rng.integers(10, 2000, 1000), rng.exponential(0.3, 1000)
    below = (unloaded_s(prompt, ttft_s) >= ttft_s).mean()
    assert below == pytest.approx(0.1, abs=0.005)


def test_many_requests_are_not_all_asked():
    prompt, free_s, wait_s = requests(1, n=20_000)
    np.testing.assert_allclose(unloaded_s(prompt, free_s + wait_s), free_s, rtol=0.01)


def test_each_part_gets_its_own_error():
    prompt, free_s, wait_s = requests(3)
    measured = side(free_s + wait_s, prompt, decode_s=2.0)
    simulated = side(1.5 * free_s + 0.5 * wait_s, prompt, decode_s=1.0)
    parts, notes = error_parts(measured, simulated, 0.5 * wait_s)
    found = {part.name: part.difference_s for part in parts}
    assert found["queueing"] == pytest.approx(-0.5 * wait_s.mean(), rel=0.02)
    assert found["prefill"] == pytest.approx(0.5 * free_s.mean(), rel=0.02)
    assert found["decode"] == pytest.approx(-1.0)
    assert sum(found.values()) == pytest.approx(simulated.e2e_s.mean() - measured.e2e_s.mean())
    assert notes == []


def test_where_all_wait_the_rule_says_that_it_fails():
    prompt, free_s, _ = requests(4)
    both = side(free_s + 5.0, prompt)
    parts, notes = error_parts(both, both, np.full(len(prompt), 5.0))
    assert "hardly a request found the server free" in notes[0]
    assert [part.name for part in parts] == ["queueing", "prefill", "decode"]


def test_a_server_s_own_queue_replaces_the_rule():
    prompt, free_s, _ = requests(5)
    measured, simulated = side(free_s + 5.0, prompt), side(free_s + 3.0, prompt)
    parts, _ = error_parts(measured, simulated, np.full(len(prompt), 3.0), server_queue_s=5.0)
    assert [(p.measured_s, p.simulated_s) for p in parts[:1]] == [(5.0, 3.0)]
    assert parts[1].difference_s == pytest.approx(0.0)


def test_few_requests_are_not_split():
    prompt, free_s, _ = requests(6, n=19)
    parts, notes = error_parts(side(free_s, prompt), side(free_s, prompt), np.zeros(19))
    assert [part.name for part in parts] == ["first token", "decode"]
    assert "fewer than 20 requests" in notes[0]
