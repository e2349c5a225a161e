"""`summarize` against a hand-computed run and against a slow computation of the definitions."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.results.metrics import METRICS
from harness.results.runlog import CATEGORIES, LIMITS, PARTS, RunLog
from harness.results.slo import SloSpec
from harness.results.summary import summarize
from harness.results.token_gaps import TokenGaps
from tests.results.logs import make_log


def golden_log() -> RunLog:
    """Gap 0-1, step 1-3 (saturated), step 3-4, gap 4-6, step 6-10; a pool of 100 bytes."""
    columns = {
        "step": [0, 1, 2],
        "start_s": [1.0, 3.0, 6.0],
        "time_s": [3.0, 4.0, 10.0],
        "running": [2, 0, 0],
        "waiting": [1, 0, 0],
        "batch": [2, 3, 1],
        "batched_tokens": [12, 3, 1],
        "blocks_in_use": [4, 6, 2],
        "logical_blocks": [8, 6, 4],
        "preemptions": [1, 0, 0],
        "hit_tokens": [0, 5, 0],
        "copied_bytes": [10, 0, 7],
        "metadata_bytes": [16, 24, 8],
        "saturated": [True, False, False],
        "token_bytes": [40, 60, 20],
        "reserved_bytes": [20, 10, 5],
        "internal_bytes": [10, 0, 0],
        "expired_bytes": [0, 0, 5],
        "external_bytes": [30, 0, 0],
        "cached_bytes": [0, 20, 10],
        "idle_bytes": [0, 10, 60],
        **{f"limited_by_{limit}": [False] * 3 for limit in LIMITS},
        "limited_by_memory": [True, False, False],
        "limited_by_tokens": [False, False, True],
        "limited_by_nobody": [False, True, False],
        **{f"{part}_s": [0.0] * 3 for part in PARTS},
        "linear_s": [1.5, 1.0, 2.0],
        "software_s": [0.5, 0.0, 2.0],
    }
    requests = {
        "request": [0, 1, 2],
        "id": ["a", "b", "c"],
        "arrival_s": [1.0, 1.0, 6.0],
        "first_scheduled_s": [1.0, 3.0, math.nan],
        "first_token_s": [3.0, 4.0, math.nan],
        "finish_s": [4.0, 10.0, math.nan],
        "prompt_tokens": [10, 20, 30],
        "output_tokens": [1, 4, 9],
        "sequences": [2, 1, 1],
        "preemptions": [0, 1, 0],
        "itl_max_s": [math.nan, 4.0, math.nan],
        "status": ["finished", "finished", "refused"],
    }
    return RunLog(
        "golden",
        100,
        {name: np.array(column) for name, column in columns.items()},
        {
            name: np.array(column, dtype=object if name in ("id", "status") else None)
            for name, column in requests.items()
        },
        {
            **{"gap_s": 3.0, "gap_cached_byte_s": 50.0, "allocator_host_s": 6e-6, "maps": 3.0},
            **{"looked_up_tokens": 40.0, "wasted_tokens": 6.0, "evictions": 2.0},
            "hit_bytes": 5.0 * 8,
        },
        token_gaps(),
    )


GOLDEN_LIMITS = {"memory": 2, "tokens": 4, "nobody": 1 + 3}


def token_gaps() -> TokenGaps:
    """The gaps of the one request with several tokens: 1, 1 and 4 seconds."""
    gaps = TokenGaps()
    gaps.add(np.array([4.0, 1.0]), np.array([1, 2]))
    return gaps


def test_golden_run():
    got = summarize(golden_log(), SloSpec(itl_s=3.9))
    expected = {
        "token_share": (80 + 60 + 80) / 1000,
        "reserved_share": (40 + 10 + 20) / 1000,
        "internal_share": 20 / 1000,
        "expired_share": 20 / 1000,
        "external_share": 60 / 1000,
        "cached_share": (0 + 20 + 40 + 50) / 1000,
        "idle_share": (0 + 10 + 240 + 300 - 50) / 1000,
        "saturated_token_share": 0.4,
        "saturated_reserved_share": 0.2,
        "saturated_internal_share": 0.1,
        "saturated_expired_share": 0.0,
        "saturated_external_share": 0.3,
        "saturated_cached_share": 0.0,
        "saturated_idle_share": 0.0,
        "sharing_saved": 1 - 22 / 38,
        "mean_batch": (4 + 3 + 4) / 10,
        "peak_batch": 3,
        "saturated_mean_batch": 2.0,
        "requests_per_s": 0.2,
        **{"goodput_requests_per_s": 0.1, "good_share": 1 / 3},
        "output_tokens_per_s": (2 + 4) / 10,
        "total_tokens_per_s": (10 + 20 + 6) / 10,
        **{"ttft_mean_s": 2.5, "ttft_p50_s": 2.5, "ttft_p90_s": 2.9, "ttft_p99_s": 2.99},
        **{"tpot_mean_s": 2.0, "tpot_p50_s": 2.0, "tpot_p90_s": 2.0, "tpot_p99_s": 2.0},
        **{"itl_mean_s": 2.0, "itl_p50_s": 1.0, "itl_p90_s": 3.4, "itl_p99_s": 3.94},
        **{"e2e_mean_s": 6.0, "e2e_p50_s": 6.0, "e2e_p90_s": 8.4, "e2e_p99_s": 8.94},
        "normalized_latency_mean_s": (3 / 1 + 9 / 4) / 2,
        **{f"limited_by_{limit}_share": 0.0 for limit in LIMITS},
        **{f"limited_by_{limit}_share": s / 10 for limit, s in GOLDEN_LIMITS.items()},
        **{f"time_{part}_share": 0.0 for part in PARTS},
        **{"time_linear_share": 0.45, "time_software_share": 0.25, "time_gap_share": 0.3},
        "preemptions": 1,
        "hit_tokens": 5,
        "hit_bytes": 40,
        "prefix_hit_rate": 5 / 40,
        "computed_tokens": 16,
        "wasted_tokens": 6,
        "evictions": 2,
        "copied_bytes": 17,
        "swapped_bytes": None,
        "metadata_bytes_peak": 24,
        "map_calls": 3,
        "unmap_calls": None,
        "map_s": None,
        "allocator_us_per_step": 2.0,
        "resident_peak_bytes": None,
        "finished_requests": 2,
        "steps": 3,
        "makespan_s": 10.0,
    }
    assert list(got) == [metric.name for metric in METRICS] == list(expected)
    assert got == pytest.approx(expected)


def slow_summary(log: RunLog) -> dict:
    """The definitions of docs/metrics.md, one step and one request at a time."""
    t, r = log.timeline, log.requests
    gap_s, length_s = log.totals["gap_s"], 0.0
    byte_s = dict.fromkeys(CATEGORIES, 0.0)
    saturated = dict.fromkeys([*CATEGORIES, "batch", "s"], 0.0)
    batch_s = physical = logical = 0.0
    for i in range(log.steps):
        d = float(t["time_s"][i] - t["start_s"][i])
        length_s += d
        batch_s += d * int(t["batch"][i])
        physical += d * int(t["blocks_in_use"][i])
        logical += d * int(t["logical_blocks"][i])
        for name in CATEGORIES:
            byte_s[name] += d * int(t[f"{name}_bytes"][i])
            if t["saturated"][i]:
                saturated[name] += d * int(t[f"{name}_bytes"][i])
        if t["saturated"][i]:
            saturated["batch"] += d * int(t["batch"][i])
            saturated["s"] += d
    length_s += gap_s
    byte_s["cached"] += log.totals["gap_cached_byte_s"]
    byte_s["idle"] += gap_s * log.capacity_bytes - log.totals["gap_cached_byte_s"]

    def over(part, whole):
        return part / whole if whole else None

    done = [i for i in range(len(r["id"])) if r["status"][i] == "finished"]
    outputs = sum(int(r["output_tokens"][i] * r["sequences"][i]) for i in done)
    prompts = sum(int(r["prompt_tokens"][i]) for i in done)
    e2e = [r["finish_s"][i] - r["arrival_s"][i] for i in done]
    latencies = {
        "ttft": [r["first_token_s"][i] - r["arrival_s"][i] for i in done],
        "tpot": [
            (r["finish_s"][i] - r["first_token_s"][i]) / (r["output_tokens"][i] - 1)
            for i in done
            if r["output_tokens"][i] > 1
        ],
        "e2e": e2e,
    }
    values = {f"{name}_share": over(byte_s[name], length_s * log.capacity_bytes) for name in byte_s}
    for name in CATEGORIES:
        whole = saturated["s"] * log.capacity_bytes
        values[f"saturated_{name}_share"] = over(saturated[name], whole)
    for name, seconds in latencies.items():
        values[f"{name}_mean_s"] = statistics.fmean(seconds) if seconds else None
        values[f"{name}_p50_s"] = statistics.median(seconds) if seconds else None
    normalized = [e / r["output_tokens"][i] for e, i in zip(e2e, done, strict=True)]
    return {
        **values,
        "sharing_saved": None if not logical else 1 - physical / logical,
        "mean_batch": over(batch_s, length_s),
        "saturated_mean_batch": over(saturated["batch"], saturated["s"]),
        "requests_per_s": over(len(done), length_s),
        "output_tokens_per_s": over(outputs, length_s),
        "total_tokens_per_s": over(outputs + prompts, length_s),
        "normalized_latency_mean_s": statistics.fmean(normalized) if normalized else None,
        "preemptions": sum(t["preemptions"].tolist()),
        "copied_bytes": sum(t["copied_bytes"].tolist()),
        "finished_requests": len(done),
    }


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(0, 40),
    requests=st.integers(0, 30),
    seed=st.integers(0, 10_000),
    gap=st.sampled_from([0.0, 0.3, 1.0]),
    saturated=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_agrees_with_the_definitions(steps, requests, seed, gap, saturated):
    log = make_log(
        steps=steps,
        requests=requests,
        seed=seed,
        gap_probability=gap,
        saturated_probability=saturated,
    )
    got = summarize(log)
    expected = slow_summary(log)
    undefined = {name for name, value in expected.items() if value is None}
    assert {name for name in expected if got[name] is None} == undefined
    for name in expected.keys() - undefined:
        assert got[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
    json.dumps(got, allow_nan=False)
    assert all(type(value) in (int, float, type(None)) for value in got.values())
    if steps:
        assert sum(got[f"{name}_share"] for name in CATEGORIES) == pytest.approx(1.0)


def break_sum(log):
    log.timeline["idle_bytes"] = log.timeline["idle_bytes"] + 1


def break_clock(log):
    log.timeline["start_s"] = log.timeline["time_s"] + 1


def break_gap(log):
    log.totals["gap_s"] += 1.0


def break_length(log):
    log.timeline["batch"] = log.timeline["batch"][:-1]


def break_columns(log):
    del log.timeline["batch"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_sum, "does not sum"),
        (break_clock, "backwards"),
        (break_gap, "of gaps"),
        (break_length, "different lengths"),
        (break_columns, "missing columns"),
    ],
)
def test_a_log_that_contradicts_itself_is_refused(damage, message):
    log = make_log()
    damage(log)
    with pytest.raises(ValueError, match=message):
        summarize(log)
