"""Goodput is that of `vllm bench serve --goodput`, and with gaps what is said of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.comparison import compose, prepare
from harness.errors import ConfigError
from harness.results.slo import SloSpec
from harness.results.summary import summarize
from tests.results.logs import make_log


def slow_good(requests, spec):
    """Count good requests one by one; limits hold what is equal to them."""
    good = 0
    for i in range(len(requests["request"])):
        if requests["status"][i] != "finished":
            continue
        ttft_s = requests["first_token_s"][i] - requests["arrival_s"][i]
        e2e_s = requests["finish_s"][i] - requests["arrival_s"][i]
        decode_s = requests["finish_s"][i] - requests["first_token_s"][i]
        tokens = requests["output_tokens"][i]
        tpot_s = decode_s / (tokens - 1) if tokens > 1 else 0.0
        itl_s = requests["itl_max_s"][i] if tokens > 1 else 0.0
        taken = {"ttft_s": ttft_s, "itl_s": itl_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
        good += all(taken[name] <= limit for name, limit in spec.limits.items())
    return good


limits = st.one_of(st.none(), st.floats(0.05, 4.0))


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 50),
    ttft_s=limits, itl_s=limits, tpot_s=limits, e2e_s=limits,
)  # fmt: skip
def test_good_requests_keep_every_limit_that_is_set(seed, ttft_s, itl_s, tpot_s, e2e_s):
    log = make_log(requests=30, seed=seed)
    one = log.requests["output_tokens"] == 1
    log.requests["itl_max_s"][one] = math.nan
    spec = SloSpec(ttft_s, itl_s, tpot_s, e2e_s)
    metrics = summarize(log, spec)
    if not spec.limits:
        assert metrics["goodput_requests_per_s"] is metrics["good_share"] is None
        return
    good = slow_good(log.requests, spec)
    assert metrics["good_share"] == good / 30
    assert metrics["goodput_requests_per_s"] == pytest.approx(good / metrics["makespan_s"])


def test_a_limit_holds_what_is_equal_to_it_and_one_token_has_no_gap():
    log = make_log(requests=2, seed=3)
    log.requests |= {
        "status": np.array(["finished"] * 2, dtype=object),
        "arrival_s": np.zeros(2), "first_token_s": np.array([1.0, 1.0]),
        "finish_s": np.array([1.0, 1.5]), "output_tokens": np.array([1, 2]),
        "itl_max_s": np.array([math.nan, 0.5]),
    }  # fmt: skip
    for spec, share in (
        (SloSpec(itl_s=0.5), 1.0),
        (SloSpec(itl_s=0.4999), 0.5),
        (SloSpec(ttft_s=1.0, tpot_s=0.5, e2e_s=1.5), 1.0),
        (SloSpec(e2e_s=1.4999), 0.5),
        (SloSpec(ttft_s=0.9999), 0.0),
    ):
        assert summarize(log, spec)["good_share"] == share, spec


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["slo.ttft_s=-1"], "slo.ttft_s must be"),
        (["slo.itl_s=0"], "slo.itl_s must be"),
        (["slo.tpot_s=nan"], "slo.tpot_s must be"),
        (["slo.e2e_s=inf"], "slo.e2e_s must be"),
        (["slo.e2e_s=1", "slo.ttft_s=2"], "slo.ttft_s=2 is beyond slo.e2e_s=1"),
        (["slo.e2e_s=1", "slo.itl_s=1.5"], "slo.itl_s=1.5 is beyond slo.e2e_s=1"),
    ],
)
def test_what_is_no_limit_or_contradicts_another_is_one_line(given, said):
    with pytest.raises(ConfigError) as refused:
        prepare(compose("+workload=uniform", "workload.num_requests=2", *given))
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
