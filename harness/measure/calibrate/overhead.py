"""What a decode step takes beyond the parts that are measured, from serving runs made for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from allocators.paged import Paged
from harness.cost.calibrated import Calibrated
from harness.cost.calibration import Calibration
from harness.engine.config import EngineSpec
from harness.executors.model.real_run import RealRun
from harness.measure.calibrate.options import STATISTICS
from harness.measure.serving import ServedStep, ServingRun, serve
from workloads.requests import RequestTable

#: decode steps at each number of rows
STEPS_EACH = 6
PROMPT_TOKENS = 16


def staircase(rows: tuple[int, ...]) -> RequestTable:
    """Return requests that decode `STEPS_EACH` steps together at each number of `rows`."""
    outputs = np.empty(rows[-1], dtype=np.int64)
    ending = [*reversed(rows), 0]
    for stage, (running, left) in enumerate(pairwise(ending)):
        # The first token comes with the prompt, before any decode step.
        outputs[left:running] = 1 + STEPS_EACH * (stage + 1)
    return RequestTable(
        arrival_s=np.zeros(len(outputs)),
        prompt_tokens=np.full(len(outputs), PROMPT_TOKENS),
        output_tokens=outputs,
    )


class Overhead:
    """The overhead of a step by its rows.

    At n rows it is what decode steps of n rows took beyond the parts that were measured: scheduling
    pieces, placing rows, noting tokens, and how kernels that follow one another get in each
    other's way.  `take` is called between the rounds of the other measurements, so that a slow
    second of the machine falls on both.
    """

    def __init__(self, real: RealRun, rows: tuple[int, ...], page_tokens: int) -> None:
        self._real, self._rows = real, rows
        longest = PROMPT_TOKENS + 1 + STEPS_EACH * len(rows) + page_tokens
        self._run = ServingRun(
            "overhead",
            partial(Paged, block_size=page_tokens),
            staircase(rows),
            capacity_tokens=rows[-1] * longest,
            engine=EngineSpec(max_num_seqs=rows[-1]),
        )
        self._taken: list[list[ServedStep]] = []

    def take(self) -> None:
        """Serve once and keep what the steps took."""
        self._taken.append(serve(self._run, self._real))

    def added(self, calibration: Calibration) -> Calibration:
        """Return the calibration with its table of overheads."""
        free = {"rows": [1], "seconds": [0.0]}
        parts = replace(calibration, tables={**calibration.tables, "overhead": free})
        priced = serve(self._run, self._real, Calibrated(self._real.decoder.shape, parts))
        pick = STATISTICS[calibration.statistic]
        beyond: dict[int, list[float]] = {n: [] for n in self._rows}
        for step, *taken in zip(priced, *self._taken, strict=True):
            if step.kind == "decode":
                took_s = pick([one.measured_s for one in taken])
                beyond[step.rows].append(took_s - step.simulated_s)
        seconds = [max(0.0, float(np.median(beyond[n]))) for n in self._rows]
        overhead = {"rows": list(self._rows), "seconds": seconds}
        return replace(calibration, tables={**calibration.tables, "overhead": overhead})
