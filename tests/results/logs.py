"""Synthetic logs: what an engine would leave behind, without an engine."""

from __future__ import annotations

import numpy as np

from harness.results.runlog import CATEGORIES, LIMITED_BY, PART_SECONDS, RunLog


def make_log(
    allocator: str = "paged",
    *,
    steps: int = 50,
    requests: int = 20,
    seed: int = 0,
    capacity_bytes: int = 1 << 20,
    gap_probability: float = 0.2,
    saturated_probability: float = 0.5,
    step_s: float = 0.05,
) -> RunLog:
    """A random log that keeps every rule of `RunLog.check`."""
    rng = np.random.default_rng(seed)
    durations_s = rng.uniform(0.5, 1.5, steps) * step_s
    waits_s = rng.exponential(step_s, steps) * (rng.random(steps) < gap_probability)
    time_s = np.cumsum(durations_s + waits_s)
    cuts = np.sort(rng.integers(0, capacity_bytes + 1, (len(CATEGORIES) - 1, steps)), axis=0)
    bounds = np.vstack((np.zeros(steps, int), cuts, np.full(steps, capacity_bytes)))
    parts = np.diff(bounds, axis=0)
    logical = rng.integers(0, 500, steps)
    counts = {
        name: rng.integers(0, high, steps)
        for name, high in (
            ("running", 30),
            ("waiting", 30),
            ("batch", 31),
            ("batched_tokens", 2048),
            ("preemptions", 3),
            ("hit_tokens", 100),
            ("copied_bytes", 1 << 16),
            ("metadata_bytes", 1 << 12),
        )
    }
    start_s = time_s - durations_s
    limit = rng.integers(0, len(LIMITED_BY), steps)
    shares = rng.dirichlet(np.ones(len(PART_SECONDS)), steps).T
    arrival_s = np.sort(rng.uniform(0, 1, requests))
    first_token_s = arrival_s + rng.exponential(1.0, requests)
    finish_s = first_token_s + rng.exponential(2.0, requests)
    never = rng.random(requests) < 0.1
    for column in (first_token_s, finish_s):
        column[never] = np.nan
    gap_s = float(waits_s.sum())
    return RunLog(
        allocator=allocator,
        capacity_bytes=capacity_bytes,
        timeline={
            "step": np.arange(steps),
            "start_s": start_s,
            "time_s": time_s,
            "blocks_in_use": rng.integers(0, logical + 1),
            "logical_blocks": logical,
            "saturated": rng.random(steps) < saturated_probability,
            **{name: limit == place for place, name in enumerate(LIMITED_BY)},
            **{
                name: share * (time_s - start_s)
                for name, share in zip(PART_SECONDS, shares, strict=True)
            },
            **counts,
            **{f"{name}_bytes": part for name, part in zip(CATEGORIES, parts, strict=True)},
        },
        requests={
            "request": np.arange(requests),
            "id": np.array([f"r{i}" for i in range(requests)], dtype=object),
            "arrival_s": arrival_s,
            "first_scheduled_s": arrival_s,
            "first_token_s": first_token_s,
            "finish_s": finish_s,
            "prompt_tokens": rng.integers(1, 500, requests),
            "output_tokens": rng.integers(1, 5, requests),
            "sequences": rng.integers(1, 5, requests),
            "preemptions": rng.integers(0, 2, requests),
            "itl_max_s": np.where(never, np.nan, rng.exponential(0.1, requests)),
            "status": np.where(never, "refused", "finished").astype(object),
        },
        totals={
            "allocator_host_s": 0.01,
            "gap_s": gap_s,
            "gap_cached_byte_s": gap_s * capacity_bytes * 0.25,
        },
    )
