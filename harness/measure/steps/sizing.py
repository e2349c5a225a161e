"""How many requests of a comparison fit a time: steps by simulation, seconds a step by a trial."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocators.paged import Paged
from harness.engine.config import EngineSpec
from harness.executors.model.real_run import RealRun
from harness.executors.model.settings import settle
from harness.executors.spec import ExecutorSpec
from harness.measure.job import Job
from harness.measure.options import load_model
from harness.measure.serving import ServingRun, serve
from harness.measure.subprocesses import release
from workloads.requests import RequestTable

#: requests that are simulated; steps are taken to grow in proportion
SIMULATED = 200
#: served by the trial, and how long the answers are: enough that the median is a decoding step
TRIAL_REQUESTS, TRIAL_TOKENS = 16, 32
#: of the time that is left once the model is loaded; the rest is for what a trial cannot see
USED = 0.6
FEWEST, MOST = 10, 1000


def fitting_requests(job: Job, model: str, kv_gib: int, workload: str) -> dict[str, Any]:
    """Return how many requests the default allocators serve in the step's time, and why."""
    steps = simulated_steps(model, kv_gib, workload)
    began_s = job.left_s()
    step_s = trial_step_s(job, model)
    # The command loads the model again, and captures and warms up for each allocator.
    load_s = 10 + 2 * (began_s - job.left_s())
    per_request_s = step_s * sum(steps.values()) / SIMULATED
    fitting = int(USED * max(0.0, job.left_s() - load_s) / per_request_s)
    return {
        "requests": min(MOST, max(FEWEST, fitting)),
        "step_s": step_s,
        "load_s": load_s,
        "simulated_requests": SIMULATED,
        "simulated_steps": steps,
    }


def simulated_steps(model: str, kv_gib: int, workload: str) -> dict[str, int]:
    """Return the steps that each default allocator takes for the first requests."""
    from harness.comparison import compose, prepare
    from harness.comparison.variant import stream_variant

    prepared = prepare(
        compose(f"+workload={workload}", f"model={model}", f"kv_memory_gib={kv_gib}")
    )
    requests = prepared.requests
    prepared.requests = requests.take(np.arange(min(SIMULATED, len(requests))))
    found = {}
    for name in prepared.config.allocators:
        row = stream_variant(prepared, name, []).row
        if row.ok:
            found[name] = int(row.metrics["steps"])
    return found


def trial_step_s(job: Job, model: str) -> float:
    """Return the median seconds of the steps of a few requests on the real model."""
    spec = ExecutorSpec(name="model", device=job.device.type)
    shape = settle(spec, load_model(model))
    real = RealRun(spec, shape, 0)
    requests = RequestTable(
        arrival_s=np.zeros(TRIAL_REQUESTS),
        prompt_tokens=np.full(TRIAL_REQUESTS, 4 * TRIAL_TOKENS),
        output_tokens=np.full(TRIAL_REQUESTS, TRIAL_TOKENS),
    )
    capacity_tokens = 8 * TRIAL_TOKENS * TRIAL_REQUESTS
    engine = EngineSpec(max_num_seqs=TRIAL_REQUESTS)
    steps = serve(ServingRun("trial", Paged, requests, capacity_tokens, engine), real)
    del real
    release(job.device)
    return float(np.median([step.measured_s for step in steps]))
