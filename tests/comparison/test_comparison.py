"""A comparison from Python: rows, logs and files, whatever a single allocator does."""

import json

from harness.comparison import compose, prepare, run_comparison

SMALL = ["+workload=uniform", "workload.num_requests=5", "kv_tokens=4000", "report=none"]


def test_every_allocator_is_a_row_and_nothing_is_printed(tmp_path, capsys):
    comparison = run_comparison(prepare(compose(*SMALL)), tmp_path / "run")
    names = ["contiguous_max", "contiguous_pow2", "contiguous_oracle", "paged", "virtual"]
    assert [row.allocator for row in comparison.rows] == names
    assert [log.allocator for log in comparison.logs] == names
    assert not comparison.interrupted
    assert not comparison.crashed
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["allocator"] for row in summary["rows"]] == names
    assert summary["config"]["num_requests"] == 5
    assert capsys.readouterr() == ("", "")


def test_an_allocator_whose_memory_does_not_add_up_is_a_row_that_says_so(tmp_path):
    wrong = "+allocators.off={_target_: tests.comparison.broken.OneByteOff}"
    composed = compose(*SMALL, wrong, "allocator=[contiguous_max,paged]")
    comparison = run_comparison(prepare(composed), tmp_path / "run")
    rows = {row.allocator: row for row in comparison.rows}
    assert {name: row.status for name, row in rows.items()} == {
        "contiguous_max": "ok", "paged": "ok", "off": "error",
    }  # fmt: skip
    assert "does not sum to the capacity" in rows["off"].reason
    assert comparison.crashed
    assert [log.allocator for log in comparison.logs] == ["contiguous_max", "paged"]


def test_progress_is_told_of_every_variant_and_its_end(tmp_path):
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def watch(name, requests):
        told = []
        yield told.append
        seen.append((name, requests, told[-1]))

    composed = compose(*SMALL, "allocator=[contiguous_max,paged]")
    run_comparison(prepare(composed), tmp_path / "run", watch)
    assert seen == [("contiguous_max", 5, 5), ("paged", 5, 5)]
