"""The large files of a run directory: Parquet, written in row groups while a run goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.results.atomic import replacing
from harness.results.bins import BINNED_COLUMNS, single_bins
from harness.results.runlog import TIMELINE_COLUMNS, Columns

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnFile:
    """One Parquet file: rows of each allocator, in row groups of its own.

    What is written lies in a temporary file, which takes the final name when `kept` is closed well.
    Raises OSError where the disk does.
    """

    def __init__(self, path: Path, columns: dict[str, type], kept: ExitStack) -> None:
        self._columns = columns
        self._temporary = kept.enter_context(replacing(path))
        self._writer = self._open(self._temporary)
        self._allocators: set[str] = set()
        kept.callback(self._close)

    def write(self, allocator: str, rows: Columns) -> None:
        """Append a row group: [n] of each column; steps fit among bins too."""
        self._allocators.add(allocator)
        if "steps" in self._columns and "steps" not in rows:
            rows = single_bins(rows)
        self._writer.write_table(column_table(allocator, rows, self._columns))

    def drop(self, allocator: str) -> None:
        """Take out what was written of an allocator, if anything was."""
        if allocator in self._allocators:
            self._allocators.remove(allocator)
            self._copy(lambda name, table: None if name == allocator else table)

    def widen(self) -> None:
        """Give a timeline the columns of bins; each step that it has becomes a bin by itself."""
        if "steps" in self._columns:
            return
        self._columns = BINNED_COLUMNS

        def wide(allocator: str, table: pa.Table) -> pa.Table:
            steps = {name: column_values(table[name]) for name in TIMELINE_COLUMNS}
            return column_table(allocator, single_bins(steps), BINNED_COLUMNS)

        self._copy(wide)

    def _open(self, path: Path) -> pa.parquet.ParquetWriter:
        import pyarrow.parquet as pq

        # pyarrow gets a path and not a Python file: Ctrl-C cannot then cut a row group in two.
        return pq.ParquetWriter(path, column_schema(self._columns), compression="zstd")

    def _close(self) -> None:
        self._writer.close()

    def _copy(self, change: Callable[[str, pa.Table], pa.Table | None]) -> None:
        """Write the file again, each row group changed, or left out where that gives None."""
        import pyarrow.parquet as pq

        self._writer.close()
        old = self._temporary.with_name(f"{self._temporary.name}.old.tmp")
        os.replace(self._temporary, old)
        try:
            self._writer = self._open(self._temporary)
            with pq.ParquetFile(old) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    changed = change(str(table["allocator"][0].as_py()), table)
                    if changed is not None:
                        self._writer.write_table(changed)
        finally:
            old.unlink()


def column_schema(columns: dict[str, type]) -> pa.Schema:
    """The Arrow schema of a column table, with `allocator` in front."""
    import pyarrow as pa

    def arrow_type(name: str, kind: type) -> pa.DataType:
        if kind is not np.object_:
            return pa.from_numpy_dtype(kind)
        return pa.dictionary(pa.int32(), pa.string()) if name == "status" else pa.string()

    fields = [pa.field("allocator", pa.dictionary(pa.int32(), pa.string()))]
    return pa.schema(fields + [pa.field(n, arrow_type(n, kind)) for n, kind in columns.items()])


def column_table(allocator: str, values: Columns, columns: dict[str, type]) -> pa.Table:
    """One variant's columns as an Arrow table; NaN becomes null."""
    import pyarrow as pa

    schema = column_schema(columns)
    rows = len(next(iter(values.values())))
    arrays = [_codes([allocator] * rows)]
    for name, kind in columns.items():
        column = values[name]
        if kind is not np.object_:
            arrays.append(_numbers(column.astype(kind, casting="same_kind", copy=False)))
            continue
        texts = [None if item is None else str(item) for item in column]
        arrays.append(_codes(texts) if name == "status" else _texts(texts))
    return pa.Table.from_arrays(arrays, schema=schema)


def column_values(column: pa.ChunkedArray) -> np.ndarray:
    """[n] values of a column, NaN where a number is null; raises TypeError for no type of ours."""
    import pyarrow as pa

    whole = column.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        # A few texts, each many times: one object a text and not one a row.
        texts = np.array(whole.dictionary.to_pylist(), dtype=object)
        return texts[np.from_dlpack(whole.indices)]
    if pa.types.is_string(whole.type):
        return np.array(whole.to_pylist(), dtype=object)
    if pa.types.is_boolean(whole.type):
        bits = np.frombuffer(whole.buffers()[1], np.uint8)
        return np.unpackbits(bits, bitorder="little")[whole.offset :][: len(whole)].astype(bool)
    if whole.null_count:
        whole = whole.fill_null(float("nan"))
    return np.from_dlpack(whole)


# Not by way of `pyarrow.array` and `to_numpy`: these import pandas, to see whether what they are
# given is its own. An Arrow array is made of buffers, which NumPy can make too.


def _numbers(values: np.ndarray) -> pa.Array:
    """An Arrow array of numbers or truths [n]; NaN is null."""
    import pyarrow as pa

    absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(0, bool)
    valid = _bits(~absent) if absent.any() else None
    held = _bits(values) if values.dtype == bool else pa.py_buffer(np.ascontiguousarray(values))
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [valid, held])


def _texts(values: Sequence[str | None]) -> pa.Array:
    """An Arrow array of texts [n]; None is null."""
    import pyarrow as pa

    absent = np.array([value is None for value in values], dtype=bool)
    valid = _bits(~absent) if absent.any() else None
    encoded = [(value or "").encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)])
    if ends[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"texts of {ends[-1]} bytes are too many for one block")
    buffers = [valid, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def _codes(values: Sequence[str | None]) -> pa.Array:
    """An Arrow array of texts [n] of which there are few, each kept once."""
    import pyarrow as pa

    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    codes = np.fromiter(map(places.__getitem__, values), np.int32, len(values))
    return pa.DictionaryArray.from_arrays(_numbers(codes), _texts(list(places)))


def _bits(values: np.ndarray) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(values, bitorder="little"))
