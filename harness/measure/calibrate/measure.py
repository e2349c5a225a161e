"""All measurements of one machine and one model, put into a calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from allocators.base import Geometry
from harness.command.output import say
from harness.command.tables import markdown_table
from harness.cost.calibrated import Calibrated
from harness.cost.calibration import Calibration
from harness.cost.kv import kv_bytes_per_token, kv_geometry
from harness.cost.roofline import Work
from harness.cost.shapes import ModelShape
from harness.executors.model.real_run import RealRun
from harness.measure.calibrate import memory
from harness.measure.calibrate.grids import FULL, QUICK, Grid
from harness.measure.calibrate.options import STATISTICS, CalibrateOptions
from harness.measure.calibrate.overhead import Overhead
from harness.measure.calibrate.step import StepParts, output_head, probe
from harness.measure.rounds import Rounds, Sampled
from harness.measure.timing import MIB, Timer
from harness.results.environment import describe_environment
from kernels.memory.pool import PoolMemory

#: KV that measurements may take on a CPU; on a GPU a quarter of what is free, at most 16 times this
POOL_BYTES = 512 * MIB


def measure(
    real: RealRun,
    options: CalibrateOptions,
    command: str,
    left_s: Callable[[], float] = lambda: math.inf,
) -> Calibration:
    """Return the calibration of a decoder on its device, as `command` asked for it.

    After the first round another is begun only if `left_s()`, the seconds that are left, are twice
    what the last one took.

    Batches and contexts that do not fit into `POOL_BYTES` are left out.  Raises `Unsupported` and
    `kernels.memory.OutOfMemory`.
    """
    assert options.repeats
    decoder, grid, page_tokens = real.decoder, QUICK if options.quick else FULL, options.page_tokens
    device, rounds = decoder.device, Rounds(Timer(decoder.device))
    overhead = Overhead(real, grid.served, page_tokens)
    geometry = _geometry(decoder.shape, page_tokens, _pool_bytes(device), grid)
    with ExitStack() as held:
        pool = held.enter_context(PoolMemory(geometry, decoder.dtype, device, paged=True))
        step = StepParts(rounds, grid, decoder, pool, real.spec.backend)
        linear, store = step.layers()
        moves = memory.moves(rounds, grid, pool)
        maps = memory.maps(rounds, grid, geometry, decoder.dtype, real.spec.handles, held)
        pace = probe(rounds, decoder)
        tables: dict[str, Any] = {
            "linear": linear,
            "store": store,
            "prefill": step.prefill(),
            "decode": step.decode(),
            "sample": output_head(rounds, grid, decoder),
            "table": memory.block_tables(rounds, grid),
            **moves,
            **maps,
        }
        left = left_s()
        for number in rounds.run(options.repeats):
            what = f"round {number} of {options.repeats}" if number else "warm-up"
            say(f"{len(rounds.numbers)} times: {what}")
            overhead.take()
            before_s, left = left, left_s()
            if number and left < 2 * (before_s - left):
                break
        pick = STATISTICS[options.statistic]
        seconds, probe_s = _seconds(tables, pick), pick(pace.taken_s)
    calibration = Calibration(
        model=asdict(decoder.shape),
        device=device.type,
        dtype=real.spec.dtype,
        backend=real.spec.backend,
        batch_invariant=decoder.batching.tile > 1,
        row_tile=decoder.batching.tile,
        threads=torch.get_num_threads(),
        page_tokens=page_tokens,
        repeats=len(pace.taken_s),
        statistic=options.statistic,
        probe_s=probe_s,
        tables=seconds,
        command=command,
        environment=describe_environment(),
    )
    return overhead.added(calibration)


def _seconds(value: Any, pick: Callable[[Sequence[float]], float]) -> Any:
    """Replace everything sampled by one number."""
    if isinstance(value, Sampled):
        return pick(value.taken_s)
    if isinstance(value, dict):
        return {key: _seconds(inner, pick) for key, inner in value.items()}
    return [_seconds(inner, pick) for inner in value] if isinstance(value, list) else value


def _geometry(model: ModelShape, page_tokens: int, pool_bytes: int, grid: Grid) -> Geometry:
    """Return a pool of whole pages, no larger than the largest measurement needs."""
    most = grid.rows[-1] * min(model.max_context, grid.context[-1])
    tokens = min(most, pool_bytes // kv_bytes_per_token(model))
    tokens = max(tokens, 2 * grid.rows[-1]) // page_tokens * page_tokens
    geometry = kv_geometry(
        model,
        1,
        capacity_tokens=max(tokens, page_tokens),
        host_tokens=grid.moved[-1],
        max_seqs=grid.rows[-1],
        max_len=model.max_context,
    )
    return replace(geometry, page_tokens=page_tokens)


def _pool_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return POOL_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return min(free // 4, 16 * POOL_BYTES)


def summary(calibration: Calibration, model: ModelShape) -> str:
    """Return what a few steps take by the file, in milliseconds."""
    cost = Calibrated(model, calibration)
    longest = model.max_context
    rows = []
    for batch, context in ((1, 256), (16, 256), (64, 256)):
        work = Work(
            decode_seqs=batch,
            decode_context_tokens=batch * min(context, longest),
            sampled=batch,
            block_tokens=calibration.page_tokens,
        )
        rows.append((f"decode, {batch} x {min(context, longest)} tokens", cost.step_s(work)))
    for new in (min(128, longest), min(1024, longest)):
        pieces = np.array([new])
        work = Work(
            prefill_new=pieces,
            prefill_past=0 * pieces,
            sampled=1,
            block_tokens=calibration.page_tokens,
        )
        rows.append((f"prefill, {new} tokens", cost.step_s(work)))
    return markdown_table(("paged step", "ms"), [(name, f"{1e3 * s:.3g}") for name, s in rows])
