"""Every token has its time, whatever the policy, a preemption or a jump over quiet steps."""

import numpy as np
import pytest

from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant
from harness.observers.token_times import TokenTimes

BASE = ("+workload=sharegpt", "workload.num_requests=40", "workload.rate=20", "allocator=[paged]")
POLICIES = {
    "chunked": ("engine=chunked",),
    "continuous": ("engine=continuous",),
    "orca": ("engine=orca",),
    "static": ("engine=static",),
    "tight": ("engine=chunked", "kv_tokens=3000"),
    "swap": ("engine=continuous", "engine.preemption=swap", "kv_tokens=3000"),
    "speculative": ("engine=continuous", "sampling.mode=speculative"),
    "parallel": ("engine=chunked", "sampling.mode=parallel", "sampling.n=3"),
    "beam": ("engine=continuous", "sampling.mode=beam", "sampling.width=3"),
}


def served(*options):
    prepared = prepare(compose(*BASE, *options))
    tokens = TokenTimes(len(prepared.requests))
    row, log = run_variant(prepared, "paged", observers=[tokens])
    assert row.ok, row.reason
    return log, tokens.of_requests()


@pytest.mark.parametrize("options", POLICIES.values(), ids=POLICIES)
def test_tokens_come_from_the_first_to_the_last(options):
    log, times_s = served(*options)
    requests = log.requests
    assert [len(times) for times in times_s] == requests["output_tokens"].tolist()
    np.testing.assert_array_equal([times[0] for times in times_s], requests["first_token_s"])
    np.testing.assert_array_equal([times[-1] for times in times_s], requests["finish_s"])
    ends_s = set(log.timeline["time_s"].tolist())
    assert all(set(times.tolist()) <= ends_s and (np.diff(times) >= 0).all() for times in times_s)
    if any("kv_tokens" in option for option in options):
        assert requests["preemptions"].sum() > 0


@pytest.mark.parametrize("name", ["chunked", "tight", "orca"])
def test_a_jump_over_quiet_steps_changes_no_time(name):
    (_, jumped), (_, stepped) = (
        served(*POLICIES[name], f"engine.skip_ahead={skips}") for skips in ("true", "false")
    )
    for one, other in zip(jumped, stepped, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_request_that_never_waits_has_a_token_a_step():
    log, times_s = served("engine=chunked")
    ends_s = log.timeline["time_s"]
    never = np.flatnonzero(log.requests["preemptions"] == 0)
    assert len(never)
    for index in never.tolist():
        times = times_s[index]
        first, last = np.searchsorted(ends_s, (times[0], times[-1]))
        np.testing.assert_array_equal(times, ends_s[first : last + 1])
