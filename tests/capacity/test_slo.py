"""Limits: what can be limited, and what contradicts itself."""

import pytest

from harness.capacity.slo import Limits, latency_metrics, parse_limits
from harness.errors import ConfigError


def test_every_latency_of_a_run_can_be_limited():
    known = latency_metrics()
    assert {"ttft_p99_s", "tpot_mean_s", "e2e_p50_s", "normalized_latency_mean_s"} <= set(known)
    assert not {"map_s", "makespan_s", "requests_per_s"} & set(known)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["slo.ttft_p95_s=1"], "did you mean slo.ttft_p99_s"),
        (["slo.speed=1"], "there are ttft_s, "),
        (["slo.ttft_p99_s=0"], "slo.ttft_p99_s must be a positive number (s), got '0'"),
        (["slo.ttft_p99_s=fast"], "got 'fast'"),
        (["slo.ttft_p99_s=inf"], "must be a positive number"),
        (["slo.ttft_p99_s=1", "slo.ttft_p99_s=2"], "contradict each other"),
        (["slo.ttft_s=1", "slo.ttft_s=2"], "slo.ttft_s=1 and slo.ttft_s=2 contradict each other"),
        (["slo.ttft_s=null"], "slo.ttft_s must be a positive number (s), got 'null'"),
        (["slo.ttft_s=1", "slo.good_share=0.9", "slo.good_share=0.8"], "contradict each other"),
        (["slo.good_share=0.9"], "give slo.ttft_s, slo.itl_s, slo.tpot_s, slo.e2e_s"),
        (["slo.ttft_s=1", "slo.good_share=99"], "slo.good_share must be at most 1, got 99"),
        (["slo.ttft_p99_s=1", "slo.ttft_p50_s=2"], "slo.ttft_p50_s=2 contradicts slo.ttft_p99_s=1"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, says):
    with pytest.raises(ConfigError) as error:
        parse_limits(arguments)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_the_limit_that_is_missed_most_comes_first():
    limits = parse_limits(["slo.ttft_p50_s=1", "slo.ttft_p99_s=2", "slo.e2e_mean_s=10"])
    assert limits == Limits({"ttft_p50_s": 1.0, "ttft_p99_s": 2.0, "e2e_mean_s": 10.0})
    assert limits.broken({"ttft_p50_s": 1.0, "ttft_p99_s": 2.0, "e2e_mean_s": 10.0}) == []
    assert limits.broken({"ttft_p50_s": 1.1, "ttft_p99_s": 4.0, "e2e_mean_s": 9.0}) == [
        "ttft_p99_s",
        "ttft_p50_s",
    ]
    requests = parse_limits(["slo.ttft_s=1", "slo.ttft_p50_s=1"])
    assert requests.texts() == ["slo.ttft_s=1", "slo.ttft_p50_s=1", "slo.good_share=0.99"]
    assert requests.values == {"ttft_s": 1.0, "good_share": 0.99, "ttft_p50_s": 1.0}
    assert requests.broken({"good_share": 0.98, "ttft_p50_s": 1.5}) == ["good_share", "ttft_p50_s"]
    assert requests.broken({"good_share": 0.99, "ttft_p50_s": 1.0}) == []
    # Nothing shows that a latency without a value is within its limit.
    assert limits.broken({"ttft_p50_s": 1.0, "ttft_p99_s": 2.0}) == ["e2e_mean_s"]
