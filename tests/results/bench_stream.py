"""What a sink costs a serving loop: a step, and a request, all the way to the files.

python -m pytest -o addopts= --benchmark-only tests/results/bench_stream.py
"""

import numpy as np
import pytest

from harness.results import ResultRow, RunWriter
from harness.results.stream import ENDED_COLUMNS, Intake
from harness.results.summary import Summary
from tests.results.logs import make_log

STEPS, REQUESTS = 1_000_000, 100_000
#: of a loop's blocks
ROWS = 4096


@pytest.mark.parametrize("timeline", ["auto", "full"])
def test_a_million_steps(timeline, benchmark, tmp_path):
    log = make_log(steps=ROWS, gap_probability=0.0)
    block, step_s = dict(log.timeline), 0.05

    def steps():
        columns, _ = start(timeline, tmp_path, log.capacity_bytes)
        for first in range(0, STEPS, ROWS):
            block["step"] = np.arange(first, first + ROWS)
            block["start_s"], block["time_s"] = block["step"] * step_s, (block["step"] + 1) * step_s
            columns.steps(block)

    benchmark.extra_info["steps"] = STEPS
    benchmark.pedantic(steps, rounds=3)


def test_a_hundred_thousand_requests(benchmark, tmp_path):
    rng = np.random.default_rng(0)

    def requests():
        intake, end = start("auto", tmp_path, 1)
        for first in range(0, REQUESTS, ROWS):
            index = rng.permutation(np.arange(first, min(first + ROWS, REQUESTS)))
            block = {name: index.astype(kind) for name, kind in ENDED_COLUMNS.items()}
            block["finish_s"] = block["arrival_s"] + 1 + rng.random(len(index))
            intake.ended(block)
        end()

    benchmark.extra_info["requests"] = REQUESTS
    benchmark.pedantic(requests, rounds=3)


def start(timeline, folder, capacity_bytes):
    """Return an intake of a new run directory, and what ends the run."""
    summary = Summary("paged", capacity_bytes)
    writer = RunWriter(folder, {}, {}, timeline)
    columns = writer.columns("paged")
    intake = Intake([summary, columns], str)

    def end():
        intake.finish()
        row = ResultRow("paged", metrics=summary.metrics({}))
        writer.end(row, {}, columns)
        writer.finish()

    return intake, end
