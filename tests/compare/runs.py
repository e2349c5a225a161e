"""Small summaries to compare, written as the harness writes them."""

from __future__ import annotations

import copy

from harness.results import ResultRow
from harness.results.metrics import METRICS
from tests.results.directories import write_run

CONFIG = {
    "allocators": {"paged": {"_target_": "allocators.paged.Paged", "block_size": 16}},
    "workload": {"name": "beam", "num_requests": 10, "source": "made up", "path": None},
    "model": {"name": "OPT-13B"},
    "engine": {"policy": "continuous", "skip_ahead": True},
    "seed": 0,
}
ENVIRONMENT = {
    "python": "3.11.7", "system": "Linux", "machine": "x86_64", "cpu_model": "A CPU",
    "cpu_cores_usable": 2, "implementation": "CPython", "packages": {"numpy": "2.4.6"},
    "gpu": None,
}  # fmt: skip
SIZES = {"fraction": 0.5, "count": 7, "tokens": 70, "bytes": 4096, "calls": 12, "steps": 500}


def metrics(**changes):
    values = {metric.name: SIZES.get(metric.unit, 2.5) for metric in METRICS}
    values["allocator_us_per_step"] = 50.0
    return {**values, **changes}


def write(path, rows=None, *, config=None, environment=None):
    """A run directory with one `paged` row, or with `rows`; `config` changes dotted options."""
    whole = copy.deepcopy(CONFIG)
    for name, value in (config or {}).items():
        *sections, last = name.split(".")
        part = whole
        for section in sections:
            part = part[section]
        part[last] = value
    rows = [ResultRow("paged", metrics=metrics())] if rows is None else rows
    write_run(path, whole, {**ENVIRONMENT, **(environment or {})}, rows)
    return path


def write_repeats(root, times_us, **options):
    """One run directory a value of the measured metric."""
    for index, value in enumerate(times_us):
        row = ResultRow("paged", metrics=metrics(allocator_us_per_step=float(value)))
        write(root / f"r{index:02}", [row], **options)
    return root
