"""What a run starts from is made once, by the check before it."""

import sys
from dataclasses import asdict

import pytest

import harness.comparison.prepared as prepared_module
from allocators.paged import Paged
from harness.__main__ import main
from harness.cli.points import KEPT_POINTS, Points
from harness.comparison import compose, prepare
from harness.comparison.prepared import RequestTables
from tests.cost.calibrations import SHAPE, TABLES, made_up

SMALL = ["+workload=uniform", "workload.num_requests=5", "allocator=[paged]", "report=none"]


@pytest.fixture
def made(monkeypatch):
    """Counts of the request tables and allocators that are made."""
    counts = {"requests": 0, "allocators": 0}
    build, init = prepared_module.build, Paged.__init__

    def counted_build(*arguments):
        counts["requests"] += 1
        return build(*arguments)

    def counted_init(*arguments, **knobs):
        counts["allocators"] += 1
        init(*arguments, **knobs)

    monkeypatch.setattr(prepared_module, "build", counted_build)
    monkeypatch.setattr(Paged, "__init__", counted_init)
    return counts


def run(monkeypatch, tmp_path, *arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def test_a_run_makes_its_requests_and_allocators_once(made, monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path, *SMALL)
    assert made == {"requests": 1, "allocators": 1}


def test_points_of_a_sweep_share_the_requests_that_they_have_in_common(
    made, monkeypatch, tmp_path, capsys
):
    run(monkeypatch, tmp_path, "-m", *SMALL, "allocators.paged.block_size=8,16,32")
    assert made == {"requests": 1, "allocators": 3}


def test_points_that_serve_other_requests_make_their_own(made, monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path, "-m", *SMALL, "seed=1,2,3")
    assert made == {"requests": 3, "allocators": 3}


def test_a_kept_allocator_serves_one_run_only():
    prepared = prepare(compose(*SMALL))
    assert prepared.allocator("paged") is not prepared.allocator("paged")


def test_a_point_beyond_those_kept_is_prepared_again(made):
    points = Points()
    composed = [compose(*SMALL, f"seed={seed}") for seed in range(KEPT_POINTS + 1)]
    for each in composed:
        points.check(each)
    before = made["allocators"]
    kept, other = points.take(composed[0]), points.take(composed[-1])
    assert made["allocators"] == before + 1
    assert (kept.config.seed, other.config.seed) == (0, KEPT_POINTS)


def test_tables_differ_where_requests_do():
    tables = RequestTables()
    first = tables.of(prepare(compose(*SMALL)).config)
    assert tables.of(prepare(compose(*SMALL, "engine.max_num_seqs=3")).config) is first
    for other in ("seed=1", "workload.num_requests=4", "engine.max_len=1500"):
        assert tables.of(prepare(compose(*SMALL, other)).config) is not first


@pytest.mark.parametrize(
    ("block", "nearest"), [(1, None), (5, None), (64, None), (128, 64)], ids=str
)
def test_blocks_beyond_those_of_a_calibration_are_noted(tmp_path, block, nearest):
    paged = TABLES["decode"]["paged"]
    sizes = [{**paged[0], "page_tokens": size} for size in (1, 64)]
    file = tmp_path / "c.json"
    made_up(decode={**TABLES["decode"], "paged": sizes}).write(file)
    shape = (
        f"model.{name}={value}"
        for name, value in asdict(SHAPE).items()
        if name not in ("name", "family", "path")
    )
    asked = (
        *SMALL,
        f"allocators.paged.block_size={block}",
        "kv_tokens=4096",
        "workload.too_long=skip",
    )
    found = prepare(
        compose(
            *asked, "model=llama-tiny", *shape, "cost_model=calibrated", f"cost_model.file={file}"
        )
    ).notes
    told = [note for note in found if note.startswith("paged: attention was measured with blocks")]
    assert told == [
        f"paged: attention was measured with blocks of 1, 64 tokens, so a step with blocks of "
        f"{block} takes as long as with {nearest}"
    ] * (nearest is not None)
