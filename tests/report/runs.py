"""Run directories to report on, made from synthetic logs, with names that try to break out."""

from __future__ import annotations

import numpy as np

from harness.results import CATEGORIES, ResultRow, RunLog
from harness.results.runlog import REQUEST_COLUMNS, TIMELINE_COLUMNS
from harness.results.summary import summarize
from tests.results.directories import write_run

EVIL = '<script>alert("x")</script>"\'&|`*_{{7*7}}'
ENVIRONMENT = {
    "python": "3.11.7", "cpu_model": "A CPU", "packages": {"numpy": "2.4.6"},
    "git": {"commit": "0123456789abcdef", "dirty": True},
}  # fmt: skip


def log(allocator, *, steps=40, requests=12, speed=1.0, seed=0, capacity=1 << 20, live=0.6):
    """A log whose steps take 0.1 s divided by `speed` and whose pool is `live` full of tokens."""
    rng = np.random.default_rng(seed)
    time_s = np.cumsum(np.full(steps, 0.1 / speed))
    timeline = {name: np.zeros(steps, kind) for name, kind in TIMELINE_COLUMNS.items()}
    token = (capacity * live * rng.uniform(0.8, 1.0, steps)).astype(np.int64)
    timeline |= {
        "step": np.arange(steps), "time_s": time_s, "start_s": time_s - 0.1 / speed,
        "token_bytes": token, "idle_bytes": capacity - token, "batch": np.full(steps, 4),
        "limited_by_memory": np.arange(steps) % 4 > 0,
        "limited_by_nobody": np.arange(steps) % 4 == 0, "linear_s": np.full(steps, 0.1 / speed),
        "blocks_in_use": np.full(steps, 50), "logical_blocks": np.full(steps, 60),
    }  # fmt: skip
    first = np.sort(rng.uniform(0.1, 0.5, requests)) * time_s[-1]
    columns = {name: np.zeros(requests, kind) for name, kind in REQUEST_COLUMNS.items()}
    columns |= {
        "request": np.arange(requests), "id": np.array([EVIL] * requests, dtype=object),
        "first_token_s": first, "finish_s": np.minimum(first * 2, time_s[-1]),
        "prompt_tokens": np.full(requests, 20), "output_tokens": np.full(requests, 10),
        "sequences": np.ones(requests, np.int64),
        "status": np.array(["finished"] * requests, dtype=object),
    }  # fmt: skip
    timeline = {n: v.astype(TIMELINE_COLUMNS[n]) for n, v in timeline.items()}
    assert set(timeline) >= {f"{c}_bytes" for c in CATEGORIES}
    return RunLog(allocator, capacity, timeline, columns, {"gap_s": 0.0, "allocator_host_s": 0.01})


def config(workload="beam", **allocators):
    return {
        "allocators": allocators or {"contiguous_oracle": {"reservation": "oracle"}},
        "workload": {"name": workload, "description": EVIL, "rate": None},
        "model": {"name": "OPT-13B"}, "hardware": {"name": "A100"}, "seed": 0, "notes": [EVIL],
    }  # fmt: skip


def write(path, speeds, *, failed=(), overrides=None, **options):
    """A run directory with one row an allocator of `speeds`, and rows for `failed` ones."""
    logs = [log(name, speed=speed, seed=3) for name, speed in speeds.items()]
    rows = [ResultRow(each.allocator, metrics=summarize(each)) for each in logs]
    rows += [ResultRow(name, status, reason) for name, status, reason in failed]
    settings = config(**options)
    knobs = settings["allocators"]
    settings["allocators"] = {row.allocator: knobs.get(row.allocator, {}) for row in rows}
    write_run(path, settings, ENVIRONMENT, rows, logs)
    if overrides is not None:
        import yaml

        (path / ".hydra").mkdir()
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    return path


def sweep(path, option, values, speeds):
    """A sweep over `option`; `speeds(value)` gives the allocators' speeds."""
    for job, value in enumerate(values):
        write(path / str(job), speeds(value), overrides=["+workload=beam", f"{option}={value}"])
    return path
