"""One replay from beginning to end: simulate, compare, say where the error comes from."""

from __future__ import annotations

from pathlib import Path

from harness.comparison import Prepared
from harness.replay.compared import compare, part_of, request_errors, sides
from harness.replay.fit import Fit, with_software
from harness.replay.measured import MeasuredRun
from harness.replay.output import Replay
from harness.replay.parts import error_parts
from harness.replay.server_metrics import ServerMetrics, beside
from harness.replay.simulate import simulate


def replayed(
    where: str,
    measured: MeasuredRun,
    prepared: Prepared,
    server: ServerMetrics | None = None,
    fit: Fit | None = None,
) -> Replay:
    """Serve a measured run's requests and compare; of a fit those that it was not fitted on.

    `server` is what it said of itself.  Raises ReplayError, one line, where the allocator cannot
    serve them.
    """
    if fit is not None:
        prepared = with_software(prepared, fit.software)
    simulated = simulate(prepared)
    left, right = sides(measured, simulated)
    rows, simulated_queue_s = simulated.rows, simulated.queue_s
    if fit is not None:
        left, right = (part_of(side, fit.checked) for side in (left, right))
        rows, simulated_queue_s = rows[fit.checked], simulated_queue_s[fit.checked]
    queue_s = None if server is None else server.queue_s
    parts, notes = error_parts(left, right, simulated_queue_s, queue_s)
    pool = prepared.geometry.capacity_tokens
    if server is not None and server.kv_tokens is not None and server.kv_tokens != pool:
        notes.append(
            f"the server's KV pool holds {server.kv_tokens} tokens, the simulated one {pool}: "
            f"kv_tokens={server.kv_tokens} takes the server's"
        )
    if fit is not None:
        notes += fit.at_bounds
    return Replay(
        file=Path(where).name,
        measured=measured,
        rows=rows,
        sides=(left, right),
        compared=compare(left, right),
        request_errors=request_errors(left, right),
        parts=parts,
        config=prepared.saved,
        notes=[*measured.notes, *prepared.notes, *notes],
        server=server,
        fit=fit,
        beside=[] if server is None else beside(server, simulated.log),
    )
