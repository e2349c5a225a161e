"""All measurements of one machine and one model, put into a calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from allocators.base import Geometry
from harness.cost.calibration import Calibration
from harness.cost.shapes import ModelShape, kv_bytes_per_token, kv_geometry
from harness.measure.calibrate import layers, memory
from harness.measure.calibrate.attention import StepParts
from harness.measure.calibrate.grids import Grid
from harness.measure.calibrate.options import STATISTICS
from harness.measure.rounds import Rounds, Sampled
from harness.measure.timing import MIB, Timer
from kernels.memory.pool import Pool

if TYPE_CHECKING:
    from harness.executors.model.decoder import Decoder

#: KV that measurements may take on a CPU; on a GPU a quarter of what is free, at most 16 times this
POOL_BYTES = 512 * MIB


def measure(
    decoder: Decoder,
    grid: Grid,
    *,
    backend: str,
    page_tokens: int,
    repeats: int,
    statistic: str,
    say: Callable[[str], None],
    between: Callable[[], None],
) -> Calibration:
    """Return the calibration of `decoder` on its device, without the table of overheads.

    Batches and contexts that do not fit into `POOL_BYTES` are left out.  `say` is told of the
    progress; `between` is called after each round.
    """
    model, device = decoder.shape, decoder.device
    rounds = Rounds(Timer(device))
    geometry = _geometry(model, page_tokens, _pool_bytes(device), grid)
    with ExitStack() as stack:
        pool = stack.enter_context(Pool(geometry, decoder.dtype, device, paged=True))
        step = StepParts(rounds, grid, decoder, pool, backend)
        linear, store = step.layers()
        swap_out, swap_in = memory.swaps(rounds, grid, pool)
        maps, unmaps, mapped = memory.calls(rounds, grid, geometry, decoder.dtype)
        for backing in mapped:
            stack.enter_context(backing)
        pace = layers.probe(rounds, decoder)
        tables: dict[str, Any] = {
            "linear": linear,
            "store": store,
            "prefill": step.prefill(),
            "decode": step.decode(),
            "sample": layers.sample(rounds, grid.rows, decoder),
            "table": memory.tables(rounds, grid),
            "copy": memory.copies(rounds, grid, pool),
            "swap_out": swap_out,
            "swap_in": swap_in,
            "map": maps,
            "unmap": unmaps,
        }
        for number in rounds.run(repeats):
            what = f"round {number} of {repeats}" if number else "warm-up"
            say(f"{len(rounds.numbers)} times: {what}")
            between()
        pick = STATISTICS[statistic]
        seconds, probe_s = _seconds(tables, pick), pick(pace.taken_s)
    return Calibration(
        model=asdict(model),
        device=device.type,
        dtype=str(decoder.dtype).removeprefix("torch."),
        backend=backend,
        batch_invariant=decoder.batching.tile > 1,
        row_tile=decoder.batching.tile,
        threads=torch.get_num_threads(),
        page_tokens=page_tokens,
        repeats=repeats,
        statistic=statistic,
        probe_s=probe_s,
        tables=seconds,
    )


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
