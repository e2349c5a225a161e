"""What limits a verdict stands beside it, and only where it does."""

from pathlib import Path

import pytest

from harness.report.caveats import caveats
from harness.report.collection import Collection, Run
from harness.report.verdict import verdicts
from harness.results import ResultRow
from tests.report.runs import sweep, write

LRU = {"prefix_index": "hash"}
RADIX = {"prefix_index": "radix"}


def collection(*rows, notes=(), workload=None, options=None, **allocators):
    config = {"notes": list(notes), "allocators": allocators, "workload": workload or {}}
    config["executor"] = {"name": "simulated"}
    run = Run("run", Path(), config, {}, list(rows), options or {})
    return Collection([run], {name: name.rpartition(".")[2] for name in options or {}})


def row(name="paged", **metrics):
    return ResultRow(
        name, metrics={"output_tokens_per_s": 1.0, "finished_requests": 100, **metrics}
    )


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"rate": None}, True),
        ({"rate": 2.0}, False),
        ({"rate": None, "concurrency": None}, True),
        ({"rate": None, "concurrency": 4}, False),
        ({"rate": None, "kind": "conversation"}, False),
        ({"rate": None, "kind": "trace"}, False),
        ({}, False),
    ],
)
def test_where_all_requests_are_there_at_once_ttft_is_queueing(workload, said):
    found = caveats(collection(row(ttft_p50_s=3.0), workload=workload))
    assert [text.startswith("All requests are there from the start") for text in found] == (
        [True] * said
    )


def test_a_radix_cache_that_is_nearly_empty_while_requests_wait():
    small, large = row(saturated_cached_share=0.02), row(saturated_cached_share=0.2)
    (said,) = caveats(collection(small, paged=RADIX))
    assert "so the prefix cache held only 2.0\u00a0% of the pool. prefix_index=radix" in said
    assert caveats(collection(large, paged=RADIX)) == []
    assert caveats(collection(small, paged=LRU)) == []
    assert caveats(collection(row(saturated_cached_share=None), paged=RADIX)) == []


def test_hits_of_requests_that_return_after_a_preemption():
    many = {"preemptions": 50, "hit_tokens": 1000, "wasted_tokens": 800}
    (said,) = caveats(collection(row(**many), paged=LRU))
    assert said.startswith("paged (hash): most hits under preemption are requests finding their")
    for few in ({"preemptions": 5}, {"wasted_tokens": 50}, {"hit_tokens": 0}):
        assert caveats(collection(row(**{**many, **few}), paged=LRU)) == []
    assert caveats(collection(row(**many), paged={})) == []


def test_notes_of_the_run_stand_beside_the_verdict_but_not_without_end():
    note = "virtual: a page-group holds 64 tokens, and the pool 3 of them"
    assert caveats(collection(row(), notes=[note])) == [f"Note: {note}"]
    many = caveats(collection(row(), notes=[f"note {index}" for index in range(9)]))
    assert many[-1] == "5 more notes stand with the configuration below."
    assert len(many) == 5
    many = caveats(collection(row(), notes=[f"note {index}" for index in range(5)]))
    assert many[-1] == "1 more note stands with the configuration below."


def test_both_files_show_them(tmp_path):
    from harness.report.build import write_report

    option = "allocators.paged.block_size"
    path = sweep(tmp_path / "s", option, [1, 8], lambda size: {"paged": 1 / size})
    for file in write_report([path], path):
        assert "All requests are there from the start" in file.read_text()


def test_hit_rates_stand_in_the_verdict_and_the_table_with_their_index(tmp_path):
    rows = [row("paged", prefix_hit_rate=0.18), row("other", prefix_hit_rate=0.06)]
    said = verdicts(collection(*rows, paged=LRU, other=RADIX))
    hits = "Tokens found in the prefix cache: paged (hash) 18\u00a0%, other (radix) 6.0\u00a0%."
    assert said[-1] == hits
    assert "prefix" not in " ".join(verdicts(collection(row())))


def test_tables_and_charts_say_which_index(tmp_path):
    from harness.report.build import write_report

    run = write(tmp_path / "run", {"paged": 1.0, "radix": 0.9}, paged=LRU, radix=RADIX)
    html, markdown = (file.read_text() for file in reversed(write_report([run], run)))
    assert 'data-v="paged (hash)"' in html
    assert ">paged (hash)</text>" in html.replace("</tspan>", "")
    assert 'data-v="radix"' in html, "what the name says is not said again"
    assert "| paged (hash)" in markdown


def test_a_sweep_over_indices_says_the_hit_rate_of_each():
    option = "allocators.paged.prefix_index"
    runs = [
        Run(index, Path(), {}, {}, [row("paged", prefix_hit_rate=rate)], {option: index})
        for index, rate in (("hash", 0.18), ("radix", 0.06))
    ]
    said = verdicts(Collection(runs, {option: "prefix_index"}))
    assert said[-1] == (
        "Tokens found in the prefix cache: prefix_index hash 18\u00a0%, "
        "prefix_index radix 6.0\u00a0%."
    )
