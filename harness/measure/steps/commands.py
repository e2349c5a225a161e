"""The steps `comparison`, `beam` and `calibrate`: each is what a public command does."""

from __future__ import annotations

import json
import shutil

from harness.measure.job import Job, one_line
from harness.measure.steps import sizing
from harness.measure.subprocesses import last_line, run_for

#: what is served in `comparison`, with random weights, and calibrated for
MODEL = {"cuda": "opt-13b", "cpu": "llama-tiny"}
KV_GIB, WORKLOAD = 12, "sharegpt"
#: with device=cpu or quick=true: what shows that the command works, in seconds
CPU_REQUESTS = 2
#: if a trial cannot tell how many fit
FALLBACK_REQUESTS = 40
#: of a row of summary.json
FACTS = ("allocator", "status", "reason", "output_digest")
METRICS = (
    "token_share", "mean_batch", "peak_batch", "requests_per_s", "output_tokens_per_s",
    "ttft_p50_s", "normalized_latency_mean_s", "preemptions", "steps", "finished_requests",
    "resident_peak_bytes", "map_s", "allocator_us_per_step",
)  # fmt: skip
#: files of a run that are kept, beside its summary, up to this size
KEPT_BYTES = 2**20


def comparison(job: Job) -> None:
    """Let the default allocators serve a chat workload on OPT-13B shapes."""
    model = MODEL[job.device.type]
    if job.device.type == "cpu":
        requests, memory = job.options.requests or CPU_REQUESTS, "executor.pool_mib=256"
    else:
        requests, memory = _how_many(job, model), f"kv_memory_gib={KV_GIB}"
    _serve(job, [f"+workload={WORKLOAD}", f"model={model}", memory], requests)


def beam(job: Job) -> None:
    """Let them serve the demonstration's beam search on a small model."""
    _serve(job, ["+workload=beam", "model=llama-tiny"], CPU_REQUESTS if job.quick else None)


def calibrate(job: Job) -> None:
    """Write the file that cost_model=calibrated reads; compare simulated with measured steps."""
    kind = job.device.type
    path = job.out / f"calibration-{MODEL[kind]}.json"
    arguments = ["-m", "harness.measure.calibrate", f"model={MODEL[kind]}", f"device={kind}"]
    arguments.append("quick=true")
    if kind == "cpu":
        # A CPU's calibration takes a minute, its comparison another: here it only has to work.
        arguments += ["compare=false", "repeats=1"]
    arguments.append(f"out={path}")
    done = run_for(job, arguments, job.left_s(), "what the command was interrupted in")
    if path.is_file():
        job.results["file"] = path.name
        job.results["comparison"] = json.loads(path.read_text(encoding="utf-8")).get("comparison")
    if done["exit_status"] and not done["timed_out"]:
        raise RuntimeError(f"status {done['exit_status']}: {last_line(done)}")


def _serve(job: Job, options: list[str], requests: int | None) -> None:
    """Run `python -m harness` with these options within the step's time; fill `results`.

    Raises `RuntimeError` if no row came of it.
    """
    directory = job.out / job.step
    shutil.rmtree(directory, ignore_errors=True)
    arguments = ["-m", "harness", *options, "executor=model", f"executor.device={job.device.type}"]
    if requests is not None:
        arguments.append(f"executor.max_requests={requests}")
    arguments += ["report=none", f"hydra.run.dir={directory}"]
    done = run_for(job, arguments, job.left_s(), "what the comparison was interrupted in")
    job.save()
    summary = directory / "summary.json"
    if not summary.is_file():
        raise RuntimeError(f"the comparison wrote nothing: {last_line(done)}")
    found = json.loads(summary.read_text(encoding="utf-8"))
    job.results["config"] = {
        key: found["config"].get(key)
        for key in ("executor", "model", "kv_memory_gib", "kv_tokens", "num_requests", "seed")
    }
    job.results["rows"] = rows = [
        {name: row.get(name) for name in FACTS}
        | {name: (row.get("metrics") or {}).get(name) for name in METRICS}
        for row in found["rows"]
    ]
    digests = {row["output_digest"] for row in rows if row["status"] == "ok"}
    job.results["same_outputs"] = len(digests) == 1
    # The summary and what is small are kept; pictures can be drawn again from it.
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "summary.json" and path.stat().st_size > KEPT_BYTES:
            path.unlink()
    job.save()
    broken = [row for row in rows if row["status"] == "error"]
    if broken and not done["timed_out"]:
        raise RuntimeError(f"{broken[0]['allocator']}: {broken[0]['reason']}")


def _how_many(job: Job, model: str) -> int:
    """Return how many requests the comparison serves."""
    if job.options.requests is not None:
        return job.options.requests
    try:
        found = sizing.fitting_requests(job, model, KV_GIB, WORKLOAD)
    except Exception as error:
        # The trial only chooses a number; the comparison itself shows what is wrong.
        found = {"requests": FALLBACK_REQUESTS, "reason": f"no trial: {one_line(error)}"}
    job.results["sizing"] = found
    job.save()
    return int(found["requests"])
