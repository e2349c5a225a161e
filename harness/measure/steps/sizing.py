"""How many requests fit a time: steps by simulation, seconds a step by a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from allocators.paged import Paged
from harness.comparison import Prepared
from harness.comparison.variant import stream_variant
from harness.engine.config import EngineSpec
from harness.executors.model.real_run import RealRun
from harness.measure.job import Job
from harness.measure.serving import ServingRun, serve
from workloads.requests import RequestTable

#: requests that are simulated; steps are taken to grow in proportion
SIMULATED = 200
#: served by the trial, and how long the answers are: enough that the median is a decoding step
TRIAL_REQUESTS, TRIAL_TOKENS = 16, 32
#: of the time given, for what a trial cannot see: rows beyond its own, longer contexts
USED = 0.6
FEWEST, MOST = 10, 500


def fitting_requests(
    job: Job, real: RealRun, runs: Mapping[str, Prepared], limit_s: float, rounds: int
) -> dict[str, Any]:
    """Return how many requests each of `runs` serves so that `rounds` of all take `limit_s`.

    `runs` are simulated ones; the trial's own time, warm-up included, is what each variant pays.
    """
    began_s = job.left_s()
    step_s = trial_step_s(real)
    start_s = began_s - job.left_s()
    steps = {name: simulated_steps(prepared) for name, prepared in runs.items()}
    variants = sum(map(len, steps.values()))
    per_request_s = step_s * sum(sum(each.values()) for each in steps.values()) / SIMULATED
    left_s = USED * (limit_s / rounds - variants * start_s)
    fitting = int(max(0.0, left_s) / per_request_s)
    return {
        "requests": min(MOST, max(FEWEST, fitting)),
        "step_s": step_s,
        "start_s": start_s,
        "simulated_requests": SIMULATED,
        "simulated_steps": steps,
    }


def simulated_steps(prepared: Prepared) -> dict[str, int]:
    """Return the steps that each allocator takes for the first requests."""
    requests = prepared.requests
    prepared.requests = requests.take(np.arange(min(SIMULATED, len(requests))))
    try:
        found = {name: stream_variant(prepared, name, []).row for name in allocators(prepared)}
    finally:
        prepared.requests = requests
    return {name: int(row.metrics["steps"]) for name, row in found.items() if row.ok}


def allocators(prepared: Prepared) -> Sequence[str]:
    """Return the names of the variants."""
    return tuple(prepared.config.allocators)


def trial_step_s(real: RealRun) -> float:
    """Return the median seconds of the steps of a few requests on the real model."""
    requests = RequestTable(
        arrival_s=np.zeros(TRIAL_REQUESTS),
        prompt_tokens=np.full(TRIAL_REQUESTS, 4 * TRIAL_TOKENS),
        output_tokens=np.full(TRIAL_REQUESTS, TRIAL_TOKENS),
    )
    capacity_tokens = 8 * TRIAL_TOKENS * TRIAL_REQUESTS
    engine = EngineSpec(max_num_seqs=TRIAL_REQUESTS)
    steps = serve(ServingRun("trial", Paged, requests, capacity_tokens, engine), real)
    return float(np.median([step.measured_s for step in steps]))
