"""Columns become Arrow arrays and come back, as pyarrow itself would make them."""

import numpy as np
import pyarrow as pa

from harness.results.columns import column_table, column_values

COLUMNS = {
    "n": np.int64, "x": np.float64, "yes": np.bool_, "id": np.object_, "status": np.object_
}  # fmt: skip
ROWS = {
    "n": np.arange(22)[::2],
    "x": np.where(np.arange(11) % 3 == 1, np.nan, np.arange(11) / 7),
    "yes": np.arange(11) % 2 == 0,
    "id": np.array(["", "é", None, *"abcdefgh"], dtype=object),
    "status": np.array(["finished", "lost"] * 5 + ["finished"], dtype=object),
}


def test_a_table_is_what_pyarrow_makes_of_the_columns():
    table = column_table("mine", ROWS, COLUMNS)
    table.validate(full=True)
    assert set(table["allocator"].to_pylist()) == {"mine"}
    for name in COLUMNS:
        expected = pa.array(ROWS[name], table.schema.field(name).type, from_pandas=True)
        assert table[name].combine_chunks().equals(expected), name
    assert table["x"].null_count == 4
    assert table["id"].null_count == 1


def test_no_rows_make_a_table_too():
    empty = {name: np.empty(0, kind) for name, kind in COLUMNS.items()}
    column_table("mine", empty, COLUMNS).validate(full=True)


def test_values_come_back_from_any_part_of_a_column():
    table = column_table("mine", ROWS, COLUMNS)
    for part in (table, table.slice(3, 7)):
        for name in ("n", "yes", "status", "allocator"):
            found = column_values(part[name])
            assert found.tolist() == part[name].to_pylist(), name
    assert column_values(table["id"]).tolist() == ROWS["id"].tolist()
