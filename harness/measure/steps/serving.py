"""The steps `opt-13b` and `llama-3-8b`: real serving, repeated, and the same runs simulated.

The model is loaded once.  Chat and beam search, or chat and a shared prefix, are served by all
default allocators, in rounds whose order is drawn anew; then the model's times are measured
(`calibrate`) and the very same runs are simulated with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from harness.comparison import Prepared, compose, prepare
from harness.comparison.variant import stream_variant
from harness.cost.shapes import ModelShape
from harness.executors.model.real_run import RealRun
from harness.measure.calibrate.measure import measure
from harness.measure.calibrate.options import CalibrateOptions
from harness.measure.job import Job, one_line
from harness.measure.steps.sizing import MOST, allocators, fitting_requests
from harness.measure.subprocesses import release
from harness.measure.timing import mean_interval
from harness.results import ResultRow

#: what is served, and how
RUNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "opt-13b": {"chat": ("+workload=sharegpt",), "beam": ("+workload=beam",)},
    "llama-3-8b": {
        "chat": ("+workload=sharegpt",),
        "prefix": ("+workload=shared_prefix", "allocators.paged.prefix_index=hash"),
    },
}
#: the pool of PagedAttention's set-up with OPT-13B; on a CPU one that binds as well
KV = {
    "cuda": ("kv_memory_gib=12",),
    "cpu": ("kv_tokens=4096", "allocators.virtual.page_size=64KiB"),
}
#: with device=cpu: shapes of the same family that are served in seconds, of requests as short
CPU_SHAPES: Mapping[str, Mapping[str, int]] = {
    "opt-13b": {"layers": 2, "hidden": 128, "heads": 4, "kv_heads": 4, "head_dim": 32, "ffn": 512},
    "llama-3-8b": {
        "layers": 2, "hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "ffn": 344,
    },
}  # fmt: skip
CPU_VOCAB, CPU_LEN = 512, 512
CPU_LENGTHS = tuple(
    f"workload.{part}.{name}={value}"
    for part, most in (("prompt", 96), ("output", 64))
    for name, value in (("kind", "uniform"), ("low", 16), ("high", most))
)
CPU_REQUESTS, QUICK_REQUESTS = 12, 2
#: at most, and as many as the number of requests is chosen for
ROUNDS, SIZED_ROUNDS = 3, 2
#: of the step's time, for serving; the rest is for the calibration and the simulation
SERVING = 0.65
#: what is compared between a real run and its simulation
COMPARED = ("output_tokens_per_s", "ttft_p50_s", "tpot_p50_s", "mean_batch", "steps")
#: of each real run, kept beside those
METRICS = (
    *COMPARED, "requests_per_s", "peak_batch", "token_share", "preemptions",
    "finished_requests", "resident_peak_bytes", "map_s", "allocator_us_per_step",
)  # fmt: skip


@dataclass
class Service:
    """A model that serves: its options on this device, and the runs as they are prepared."""

    step: str
    device: str
    quick: bool

    @property
    def options(self) -> tuple[str, ...]:
        """Options of every run, real or simulated."""
        chosen = (f"model={self.step}", *KV[self.device], "report=none")
        if self.device == "cuda":
            return chosen
        shape = CPU_SHAPES[self.step] | {"vocab": CPU_VOCAB, "max_context": CPU_LEN}
        sizes = (f"model.{name}={value}" for name, value in shape.items())
        return (*chosen, *CPU_LENGTHS, *sizes)

    @property
    def runs(self) -> Mapping[str, tuple[str, ...]]:
        return RUNS[self.step]

    def real(self, run: str) -> Prepared:
        """Return a run on the real model, of as many requests as are ever served.

        To be asked before the model is loaded: it is checked that there is memory for one.
        """
        executor = ("executor=model", f"executor.device={self.device}")
        asked = (*self.runs[run], *self.options, *executor, f"executor.max_requests={MOST}")
        return prepare(compose(*asked))

    def simulated(self, run: str, model: ModelShape, *cost: str) -> Prepared:
        """Return it as it is simulated, for the shape that the real model has here."""
        asked = (*self.runs[run], *self.options, f"model.dtype_bytes={model.dtype_bytes}", *cost)
        return prepare(compose(*asked))


def serve(step: str, job: Job) -> None:
    """Fill `results.rows`, a row for each run and allocator, and `results.simulated`."""
    service = Service(step, job.device.type, job.quick)
    prepared = {run: service.real(run) for run in service.runs}
    config = prepared["chat"].config
    real = RealRun(config.executor, config.model, config.seed)
    requests, results = _requests(job, service, real), job.results
    results |= {"model": config.model.name, "dtype": real.spec.dtype, "requests": requests}
    for each in prepared.values():
        each.requests = each.requests.take(np.arange(requests))
    taken = _rounds(job, real, prepared)
    job.save()
    file = _calibrate(job, real, f"calibration-{step}.json")
    if file is not None:
        model = real.decoder.shape
        del real
        release(job.device)
        # Quoted: a folder may be called anything.
        cost = ("cost_model=calibrated", f"cost_model.file={json.dumps(str(job.out / file))}")
        results["simulated"] = list(_simulated(service, model, cost, prepared, taken))
        results["errors"] = {name: _errors(results["simulated"], name) for name in COMPARED}
    broken = [row for row in results["rows"] if row["status"] == "error"]
    if broken:
        raise RuntimeError(f"{broken[0]['run']}, {broken[0]['allocator']}: {broken[0]['reason']}")


opt_13b, llama_3_8b = partial(serve, "opt-13b"), partial(serve, "llama-3-8b")


def _requests(job: Job, service: Service, real: RealRun) -> int:
    """Return how many requests each run serves."""
    if job.options.requests is not None:
        return min(MOST, job.options.requests)
    if job.quick or job.device.type == "cpu":
        return QUICK_REQUESTS if job.quick else CPU_REQUESTS
    runs = {run: service.simulated(run, real.decoder.shape) for run in service.runs}
    found = fitting_requests(job, real, runs, SERVING * job.left_s(), SIZED_ROUNDS)
    job.results["sizing"] = found
    job.save()
    return int(found["requests"])


Taken = dict[tuple[str, str], list[ResultRow]]


def _rounds(job: Job, real: RealRun, prepared: Mapping[str, Prepared]) -> Taken:
    """Serve every run by every allocator, in rounds; keep `results.rows` up to date."""
    pairs = [(run, name) for run, each in prepared.items() for name in allocators(each)]
    taken: Taken = {pair: [] for pair in pairs}
    cost_s = dict.fromkeys(pairs, 0.0)
    random, until_s = np.random.default_rng(0), (1 - SERVING) * job.left_s()
    for number in range(SIZED_ROUNDS if job.quick else ROUNDS):
        for at in random.permutation(len(pairs)):
            pair = run, name = pairs[at]
            began_s = job.left_s()
            if number and began_s - cost_s[pair] < until_s:
                job.leave_out(f"{run}, {name}: round {number + 1}")
                continue
            row = stream_variant(prepared[run], name, [], real=real).row
            taken[pair].append(row)
            cost_s[pair] = began_s - job.left_s()
            job.results["rows"] = [_row(*each, rows) for each, rows in taken.items() if rows]
            job.save()
    return taken


def _row(run: str, allocator: str, rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Return what came of one run by one allocator: of each metric the mean and its interval."""
    worst = next((row for row in rows if not row.ok), rows[0])
    found: dict[str, Any] = {
        "run": run,
        "allocator": allocator,
        "status": worst.status,
        "reason": worst.reason,
        "rounds": len(rows),
        "output_digests": sorted({row.output_digest or "" for row in rows}),
    }
    for name in METRICS:
        values = [row.metrics.get(name) for row in rows if row.ok]
        numbers = [float(value) for value in values if value is not None]
        if numbers:
            found[name] = dict(zip(("mean", "low", "high"), mean_interval(numbers), strict=True))
    return found


def _calibrate(job: Job, real: RealRun, file: str) -> str | None:
    """Measure the model's times into `file`; say in the record why not, where that fails."""
    quick = CalibrateOptions(quick=True, repeats=1 if job.quick else 3)
    if not job.room("calibration and simulation", 2.0):
        return None
    try:
        calibration = measure(real, quick, job.command, job.left_s)
    except Exception as error:
        job.results["not_calibrated"] = one_line(error)
        return None
    calibration.write(job.out / file)
    job.results["calibration"] = file
    job.results["calibration_rounds"] = calibration.repeats
    job.save()
    return file


def _errors(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float] | None:
    """Return the median and the largest |simulated / measured - 1|; None without any."""
    found = [abs(row[metric]["error"]) for row in rows if metric in row and row[metric]["measured"]]
    return {"median": float(np.median(found)), "largest": max(found)} if found else None


def _simulated(
    service: Service,
    model: ModelShape,
    cost: Sequence[str],
    prepared: Mapping[str, Prepared],
    taken: Taken,
) -> Iterator[dict[str, Any]]:
    """Yield for each run and allocator what is simulated, and how far that is from measured."""
    for run, real in prepared.items():
        simulated = service.simulated(run, model, *cost)
        assert simulated.geometry.capacity_tokens == real.geometry.capacity_tokens
        simulated.requests = real.requests
        for name in allocators(simulated):
            served = [row for row in taken[run, name] if row.ok]
            if not served:
                continue
            row = stream_variant(simulated, name, []).row
            found: dict[str, Any] = {
                "run": run, "allocator": name, "status": row.status, "reason": row.reason,
            }  # fmt: skip
            for metric in COMPARED if row.ok else ():
                measured = np.mean([float(one.metrics[metric] or 0.0) for one in served])
                guess = float(row.metrics[metric] or 0.0)
                error = guess / measured - 1 if measured else None
                found[metric] = {"simulated": guess, "measured": measured, "error": error}
            yield found
