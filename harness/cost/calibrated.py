"""The calibrated cost model: the same parts as the roofline's, from times measured on one machine.

    linear    every layer without its attention, by tokens of the step (in whole tiles)
    store     writing the step's keys and values, by tokens, a layer
    prefill   attention of each prompt piece by (past, new), a layer; a call's floor counts once
    decode    attention by (batch, mean context), a layer, contiguous or by the size of its pages
    sample    output head and choice, by sampled rows
    table     sending block tables
    overhead  what the executor does around these, by rows of the step

Only `decode` and `table` change while a batch just decodes.  Both are worked out elementwise on an
array of steps, so skipping ahead over n steps gives the very bits of n single steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from allocators.base import Allocator, Grant, IntArray, Unsupported
from harness.cost.calibration import MADE_BY, SURFACES, Calibration, load_calibration
from harness.cost.curves import FloatArray, SecondsOf
from harness.cost.flat import NOTHING, Priced
from harness.cost.grants import PricedGrant
from harness.cost.model import CostModel
from harness.cost.roofline import Work
from harness.cost.shapes import CostError, HardwareSpec, ModelShape
from harness.cost.spec import CostSpec

NEEDS_FILE = f"cost_model=calibrated needs cost_model.file=FILE, made by {MADE_BY}"


class Calibrated(CostModel):
    """Prices steps and grants by what was measured; all times in seconds."""

    def __init__(self, model: ModelShape, calibration: Calibration, file: str = "the file") -> None:
        """Raise `CostError` when the calibration is for another model, or is broken."""
        calibration.check_model(model, file)
        self.model, self.calibration, self.file = model, calibration, file
        self._tile = max(1, calibration.row_tile)
        try:
            curve = calibration.curve
            self._linear, self._sample, self._store = (
                curve("linear"),
                curve("sample"),
                curve("store"),
            )
            self._overhead, self._table = curve("overhead"), curve("table")
            self._copy = curve("copy")
            self._swap_out, self._swap_in = curve("swap_out"), curve("swap_in")
            self._contiguous = {table: calibration.contiguous(table) for table in SURFACES}
            self._paged = {table: calibration.paged(table) for table in SURFACES}
            self._calls = {name: calibration.calls(name) for name in ("map", "unmap")}
        except CostError as error:
            raise CostError(f"{file}: {error}") from error

    @classmethod
    def read(cls, model: ModelShape, hardware: HardwareSpec, cost: CostSpec) -> Calibrated:
        """Read `cost.file`.  Raises `CostError` in one line."""
        if not cost.file:
            raise CostError(NEEDS_FILE)
        if hardware.count != 1:
            raise CostError(
                f"a calibration is of one device: hardware.count must be 1, got {hardware.count}"
            )
        return cls(model, load_calibration(cost.file), cost.file)

    @property
    def page_sizes(self) -> list[int]:
        """The tokens of the pages with which decode was measured, increasing."""
        return self._paged["decode"].sizes

    # -- a step --------------------------------------------------------------------------------

    def step(self, work: Work) -> Priced:
        """Return what one step takes, and on what; see `Roofline.step`."""
        pieces = int(np.count_nonzero(work.prefill_new))
        prefill_tokens = int(work.prefill_new.sum()) if pieces else 0
        tokens = prefill_tokens + work.decode_seqs
        if tokens == 0:
            return NOTHING
        linear, attention = self._linear_s(tokens) + self._sample_s(work.sampled), 0.0
        seconds = self._steady_s(tokens, work.decode_seqs + pieces, work.sampled)
        if pieces:
            attention = self._prefill_s(work.prefill_new, work.prefill_past, work.block_tokens)
            seconds += attention
        if work.decode_seqs:
            context = np.array([work.decode_context_tokens], dtype=np.float64)
            decode = float(self._decode_s(work.decode_seqs, context, work.block_tokens)[0])
            seconds += decode
            attention += decode
        seconds += float(self._table_s(np.array([work.table_bytes]))[0])
        return Priced(seconds, linear, attention + self._store_s(tokens), 0.0)

    def decode_window(
        self,
        seqs: int,
        context_tokens: int,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> Priced:
        """Return what these steps take, and on what; see `CostModel`."""
        if seqs == 0:
            return NOTHING._replace(seconds=np.zeros(steps))
        context = (context_tokens + seqs * np.arange(steps, dtype=np.int64)).astype(np.float64)
        decode = self._decode_s(seqs, context, block_tokens)
        tables = self._table_s(np.broadcast_to(np.asarray(table_bytes), steps))
        seconds = self._steady_s(seqs, seqs, seqs) + decode + tables
        linear = self._linear_s(seqs) + self._sample_s(seqs)
        return Priced(seconds, linear, decode + self._store_s(seqs), 0.0)

    # -- a grant -------------------------------------------------------------------------------

    def grant(self, grant: Grant, allocator: Allocator) -> PricedGrant:
        """Return what all that a grant asks for takes.

        Raises `Unsupported` for maps of a page size that was not measured.
        """
        maps_s = 0.0
        for call, rows in (("unmap", grant.unmaps), ("map", grant.maps)):
            if len(rows):
                calls = allocator.driver_calls(rows)
                maps_s += sum(n * self._call_s(call, size) for size, n in calls.items())
        geometry = allocator.geometry
        copies_s, out_s, in_s = (
            curve.one(geometry.bytes_moved(rows) / geometry.ranks) if len(rows) else 0.0
            for rows, curve in (
                (grant.copies, self._copy),
                (grant.swaps_out, self._swap_out),
                (grant.swaps_in, self._swap_in),
            )
        )
        swaps_s = out_s + in_s
        return PricedGrant(maps_s + copies_s + swaps_s, maps_s, copies_s, swaps_s)

    def overlapped_s(
        self, compute_s: float, grants: Sequence[Grant], allocator: Allocator
    ) -> float:
        """Return `compute_s`: the executor that was measured waits for each of its copies."""
        return compute_s

    def _call_s(self, name: str, page_bytes: int) -> float:
        # Never between two sizes or beyond them: another size may need another driver.
        seconds, reason = self._calls[name]
        if page_bytes not in seconds:
            raise Unsupported(
                f"{self.file} has no time for a driver's {name} of {page_bytes >> 10} KiB: {reason}"
            )
        return seconds[page_bytes]

    # -- parts of a step -----------------------------------------------------------------------
    def _steady_s(self, tokens: int, rows: int, sampled: int) -> float:
        """Return what does not depend on the lengths of the sequences."""
        body = self._linear_s(tokens) + self._store_s(tokens)
        return body + self._sample_s(sampled) + self._overhead.one(rows)

    def _decode_s(self, seqs: int, context: FloatArray, block_tokens: int) -> FloatArray:
        """Return the attention of decodes for total contexts [n] of `seqs` rows."""
        return self.model.layers * self._attention("decode", block_tokens)(seqs, context / seqs)

    def _attention(self, table: str, block_tokens: int) -> SecondsOf:
        return self._paged[table].of(block_tokens) if block_tokens else self._contiguous[table]

    def _store_s(self, tokens: int) -> float:
        return self.model.layers * self._store.one(tokens)

    def _prefill_s(self, new: IntArray, past: IntArray, block_tokens: int) -> float:
        """Return the attention of all pieces; all of them go through one call a layer."""
        surface = self._attention("prefill", block_tokens)
        floor = float(surface(0, np.ones(1))[0])
        total = floor
        for n, before in zip(new.tolist(), past.tolist(), strict=True):
            if n:
                total += max(0.0, float(surface(before, np.array([float(n)]))[0]) - floor)
        return self.model.layers * total

    def _linear_s(self, tokens: int) -> float:
        return self._linear.one(self._tiled(tokens))

    def _sample_s(self, sampled: int) -> float:
        return self._sample.one(self._tiled(sampled)) if sampled else 0.0

    def _tiled(self, rows: int) -> int:
        """Return the rows that a padding decoder computes; a line between tiles would be wrong."""
        return -(-rows // self._tile) * self._tile

    def _table_s(self, table_bytes: IntArray) -> FloatArray:
        return np.where(table_bytes > 0, self._table(table_bytes), 0.0)
