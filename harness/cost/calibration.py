"""The calibration file: what was measured, on what, for which model; reading, checking, writing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.cost.curves import Curve, PagedSurfaces, Surface
from harness.cost.shapes import CostError, ModelShape

#: 2: attention over pages by their size; in a file of version 1 it is of one size, `page_tokens`
SCHEMA_VERSION = 2
READABLE = (1, SCHEMA_VERSION)
KIND = "kv-harness calibration"
#: fields of a shape on which step times depend; a calibration serves one value of each
COST_FIELDS = (
    "family", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "dtype_bytes",
    "gated_ffn", "learned_positions", "linear_bias", "qkv_bias", "qk_norm", "experts",
    "active_experts",
)  # fmt: skip
#: tables of one amount, with the name of the amount in the file
CURVES = {
    "linear": "tokens", "sample": "rows", "store": "tokens", "overhead": "rows",
    "copy": "bytes", "swap_out": "bytes", "swap_in": "bytes", "table": "bytes",
}  # fmt: skip
#: tables of two amounts: one curve of the second for each of the first; `contiguous`, and `paged`
#: for each of some page sizes
SURFACES = {"decode": ("batch", "context_tokens"), "prefill": ("past_tokens", "new_tokens")}
#: tables of driver calls; empty, with a reason, where memory cannot be mapped
CALLS = ("map", "unmap")
MADE_BY = "python -m harness.measure.calibrate"


@dataclass
class Calibration:
    """One file, as it is.  Times are in seconds: the `statistic` (median or least) of
    `repeats` samples after a warm-up.

    A decoder that pads its batches computes whole tiles of `row_tile` rows (1: it does not pad).
    """

    model: dict[str, Any]
    device: str
    dtype: str
    backend: str
    batch_invariant: bool
    row_tile: int
    threads: int  # of a CPU's kernels
    page_tokens: int
    repeats: int
    statistic: str
    probe_s: float  # a pass over 64 tokens without attention, to see later whether that has changed
    tables: dict[str, Any]
    command: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    #: simulated against measured step times right after, see harness.measure.calibrate.accuracy
    comparison: dict[str, Any] | None = None

    def text(self) -> str:
        record = {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(record, indent=1) + "\n"

    def write(self, path: Path) -> None:
        """Replace `path` atomically."""
        # Imported here: a cost model needs nothing of the results.
        from harness.results.atomic import write_text

        write_text(path, self.text())

    # -- tables ----------------------------------------------------------------------------------
    def curve(self, name: str) -> Curve:
        """Return a table of `CURVES`.  Raises `CostError` if it is not there or makes no sense."""
        try:
            table = self.tables[name]
            return Curve(table[CURVES[name]], table["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise CostError(f"calibration table {name!r}: {_reason(error)}") from error

    def contiguous(self, name: str) -> Surface:
        """Return a table of `SURFACES` for contiguous rows.  Raises `CostError`."""
        try:
            return _surface(name, self.tables[name]["contiguous"])
        except (KeyError, TypeError, ValueError) as error:
            raise CostError(f"calibration table {name!r}, contiguous: {_reason(error)}") from error

    def paged(self, name: str) -> PagedSurfaces:
        """Return a table of `SURFACES` for rows in pages.  Raises `CostError`."""
        try:
            parts = self.tables[name]["paged"]
            if not any("page_tokens" in part for part in parts):  # version 1
                parts = [{"page_tokens": self.page_tokens, "rows": parts}]
            return PagedSurfaces({p["page_tokens"]: _surface(name, p["rows"]) for p in parts})
        except (KeyError, TypeError, ValueError) as error:
            raise CostError(f"calibration table {name!r}, paged: {_reason(error)}") from error

    def calls(self, name: str) -> tuple[dict[int, float], str]:
        """Return ({page bytes: seconds of a driver call}, why there are no others).

        Raises `CostError` if the table makes no sense.
        """
        try:
            table = self.tables[name]
            sizes = table["page_bytes"]
            if not sizes:
                return {}, str(table["reason"])
            Curve(sizes, table["seconds"])  # raises for points that make no sense
            measured = ", ".join(str(size >> 10) for size in sizes)
            return dict(zip(sizes, table["seconds"], strict=True)), f"measured were {measured} KiB"
        except (KeyError, TypeError, ValueError) as error:
            raise CostError(f"calibration table {name!r}: {_reason(error)}") from error

    # -- fit -------------------------------------------------------------------------------------
    def check_model(self, model: ModelShape, file: str) -> None:
        """Raise `CostError` that names the first field in which `model` is not the measured one."""
        wanted = asdict(model)
        for name in COST_FIELDS:
            measured = self.model.get(name)
            if measured == wanted[name]:
                continue
            hint = f"; {MADE_BY} makes one for this model"
            if name == "dtype_bytes":
                hint = f"; it computed in {self.dtype}: model.dtype_bytes={measured} agrees with it"
            raise CostError(
                f"{file} was measured with {name}={measured} and the model has "
                f"{name}={wanted[name]}{hint}"
            )


def load_calibration(file: str) -> Calibration:
    """Read a calibration file.  Raises `CostError` in one line."""
    path = Path(file).expanduser()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CostError(f"cannot read the calibration {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CostError(f"{file} is not a calibration: it is not JSON ({error})") from error
    if not isinstance(record, dict) or record.pop("kind", None) != KIND:
        raise CostError(f"{file} is not a calibration made by {MADE_BY}")
    version = record.pop("schema_version", None)
    if version not in READABLE:
        raise CostError(
            f"{file} has schema_version {version} and this version reads "
            f"{' and '.join(map(str, READABLE))}; measure again with {MADE_BY}"
        )
    try:
        found = Calibration(**record)
        if not isinstance(found.model, dict) or not isinstance(found.tables, dict):
            raise TypeError("model and tables must be objects")
    except TypeError as error:
        raise CostError(f"{file} is not a whole calibration: {error}") from error
    return found


def _surface(name: str, rows: list[dict[str, Any]]) -> Surface:
    outer, inner = SURFACES[name]
    curves = [Curve(row[inner], row["seconds"]) for row in rows]
    return Surface([row[outer] for row in rows], curves)


def _reason(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
