"""The curve: where contenders lie in memory, that all compute the same, and what is drawn."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch

from harness.measure import contenders
from harness.measure.contenders import PAGES, Arena, AttentionBatch, Contender
from harness.measure.picture import draw
from harness.measure.steps import curve
from harness.measure.tables import DRAWN
from kernels import decode, place, prefill
from kernels.rows import as_pages
from tests.kernels.interpreted import run_interpreted
from tests.kernels.memory.fake_cuda import FakeCuda
from tests.measure.cuda_backing import cuda_backing_for
from tests.measure.jobs import make_job

HEADS = (5, 5, 64)  # 51.2 tokens a page of 64 KiB
CPU = torch.device("cpu")
RAGGED = AttentionBatch.of(5, 300, ragged=True)
PIECES = AttentionBatch.of(3, 240, 70, ragged=True)


@pytest.fixture(params=[HEADS, (8, 2, 64)], ids=["padded", "whole"])
def arena(request):
    with ExitStack() as held:
        made = Arena(request.param, torch.float32, CPU, 8 << 20, held)
        assert not made.refused
        yield made


def slots(arena, who, batch):
    """Return the byte address of every token's keys, a list for each row."""
    lengths = np.array(batch.lengths)
    (keys, _), layout = arena._laid_out(who, lengths)
    rows = place(layout, keys, np.array(batch.new))
    table, offset = rows.table.numpy().astype(np.int64), rows.offset.numpy()
    view = as_pages(keys, rows.page_tokens)
    page_stride, token_stride = (4 * view.stride(axis) for axis in (0, 1))
    found = []
    for row, length in enumerate(lengths):
        page, token = np.divmod(offset[row] + np.arange(length), rows.page_tokens)
        found.append(keys.data_ptr() + table[row, page] * page_stride + token * token_stride)
    return found


@pytest.mark.parametrize("batch", [RAGGED, PIECES], ids=["decode", "prefill"])
def test_no_two_tokens_share_memory_and_pages_are_where_they_are_said(arena, batch):
    token = 4 * HEADS[1] * HEADS[2] if arena.heads == HEADS else 4 * 2 * 64
    for who in arena.contenders("cpu"):
        rows = slots(arena, who, batch)
        every = np.concatenate(rows)
        assert len(np.unique(every)) == sum(batch.lengths), who
        gaps = [np.diff(row) for row in rows]
        if who.layout == "contiguous" or (who.layout == "virtual" and who.page_tokens is None):
            assert all((gap == token).all() for gap in gaps), who
        elif who.layout == "paged":
            jumps = [np.flatnonzero(gap != token) + 1 for gap in gaps]
            assert all((jump % who.page_tokens == 0).all() for jump in jumps), who
            if who.page_tokens == 1:
                assert all(len(jump) > 0 for jump in jumps), "pages are in no order"
        else:
            page = who.page_tokens
            over = [gap[page - 1 :: page] for gap in gaps]
            assert sum(map(len, over)) > 0, "some row is longer than a page"
            assert all((np.delete(gap, np.s_[page - 1 :: page]) == token).all() for gap in gaps)
            assert all((gap > token).all() and (gap <= 2 * token).all() for gap in over), who


@pytest.mark.parametrize("batch", [RAGGED, PIECES], ids=["decode", "prefill"])
def test_every_contender_computes_attention_over_its_own_rows(arena, batch):
    lengths, new = np.array(batch.lengths), np.array(batch.new)
    q = torch.randn(int(new.sum()), arena.heads[0], 64)
    names = set()
    for who in arena.contenders("cpu"):
        names.add((who.layout, who.page_tokens))
        (keys, values), layout = arena._laid_out(who, lengths)
        rows = place(layout, keys, new)
        args = (None,) if batch.mode == "prefill" else ()
        kernel = prefill if batch.mode == "prefill" else decode
        found, expected = (
            kernel(q, keys, values, rows, *args, 0.125, backend=backend)
            for backend in ("cpu", "reference")
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert torch.isfinite(arena.call(who, batch)()).all()
    page = 51 if arena.heads == HEADS else None
    assert names == {
        ("contiguous", None), ("padded", 204), ("virtual", page), *(("paged", p) for p in PAGES),
    }  # fmt: skip


def test_a_driver_that_refuses_leaves_the_pool(monkeypatch):
    def refuses(*_, **__):
        raise MemoryError("no\nroom")

    monkeypatch.setattr("harness.measure.contenders.backing_for", refuses)
    with ExitStack() as held:
        arena = Arena(HEADS, torch.float32, CPU, 8 << 20, held)
        assert arena.refused == "MemoryError: no room"
        assert {who.memory for who in arena.contenders("cpu")} == {"pool"}
        assert torch.isfinite(arena.call(Contender("cpu", "pool", "padded", 204), RAGGED)()).all()


@pytest.mark.parametrize("heads", [HEADS, (8, 2, 64)], ids=["padded", "whole"])
def test_cuda_maps_every_page_of_the_arena_and_takes_all_back(monkeypatch, heads):
    fake = FakeCuda(granularity=64 << 10)
    monkeypatch.setattr(contenders, "backing_for", cuda_backing_for(fake))
    with ExitStack() as held:
        arena = Arena(heads, torch.float32, CPU, 8 << 20, held)
        assert not arena.refused
        # 3,276 tokens a tensor, which fill 63 pages and a part of one
        pages = 126 if heads == HEADS else 128
        assert len(fake.mapped) == len(fake.accessible) == pages
        maps = [call for call in fake.calls if call[0] == "cuMemMap"]
        created = fake.names().index("cuMemMap")
        assert fake.names()[:created].count("cuMemCreate") == pages, "made ahead, as in a run"
        keys = [call[4] for call in sorted(maps[::2], key=lambda call: call[1])]
        assert keys != sorted(keys), "in no order"
        (virtual,) = (who for who in arena.contenders("cpu") if who.memory == "mapped")
        assert torch.isfinite(arena.call(virtual, RAGGED)()).all()
    assert fake.clean()


def test_library_kernels_take_the_layouts_that_they_have(arena):
    assert [who.layout for who in arena.contenders("sdpa")] == ["contiguous"]
    flash = {(who.layout, who.page_tokens) for who in arena.contenders("flash")}
    whole = {("virtual", None)} if arena.heads != HEADS else set()
    assert flash == {("contiguous", None), ("paged", 16), ("paged", 256), *whole}


def test_batches_are_counted_by_hand():
    even = AttentionBatch.of(2, 100)
    assert (even.mode, even.even, even.seen) == ("decode", True, 200)
    # keys and values of 200 tokens and 2 heads, a query and an output of 8 heads a row
    assert even.numbers((8, 2, 64)) == 2 * 64 * (200 * 2 + 2 * 8)
    piece = AttentionBatch.of(1, 10, 3)
    assert (piece.mode, piece.lengths, piece.new) == ("prefill", (13,), (3,))
    assert piece.seen == 11 + 12 + 13
    windowed = AttentionBatch.of(2, 100, window=30)
    assert windowed.seen == 2 * 30
    assert windowed.numbers((8, 2, 64)) == 2 * 64 * (2 * 30 * 2 + 2 * 8)
    filling = AttentionBatch.of(1, 2, 6, window=4)
    assert filling.seen == 3 + 4 * 5
    assert filling.numbers((1, 1, 1)) == 2 * (8 + 6)
    behind = AttentionBatch.of(1, 10, 3, window=4)
    assert (behind.seen, behind.numbers((1, 1, 1))) == (12, 2 * (6 + 3))
    ragged = AttentionBatch.of(64, 1024, ragged=True)
    assert not ragged.even
    assert 128 <= min(ragged.lengths) < max(ragged.lengths) < 1920
    assert 800 < np.mean(ragged.lengths) < 1250


def test_the_batches_of_a_gpu_go_from_1_to_128_rows_even_and_ragged():
    found = curve.batches("cuda", quick=False)
    assert {(1, True), (64, False), (128, True)} <= {(len(b.lengths), b.even) for b in found}
    assert {b.mode for b in found[:2]} == {"decode", "prefill"}


def test_gpt_oss_s_two_kinds_of_layers_are_measured_right_after_the_first_shape():
    found = curve.windowed_batches("cuda", quick=False)
    assert found[0] == AttentionBatch.of(64, 4096, window=128, sinks=True)
    assert {(b.mode, b.window, b.sinks) for b in found} >= {
        (mode, window, True) for mode in ("decode", "prefill") for window in (None, 128)
    }
    # What sinks cost, and what a window that is read through costs over a row of its length.
    assert {AttentionBatch.of(64, 4096), AttentionBatch.of(64, 128)} <= set(found)
    assert all(b.window == 128 and b.sinks for b in curve.windowed_batches("cuda", quick=True))


@pytest.mark.parametrize("new", [0, 20])
def test_a_window_and_sinks_are_what_is_timed(arena, new):
    """Nothing behind the window is read, and the sinks take a share of each softmax."""
    batch = AttentionBatch.of(2, 60, new, window=16, sinks=True)
    for cache in arena._pool:
        cache.fill_(1.0)
    asks_first = 60 if new else 59
    for row in range(2):
        for cache in arena._pool:
            cache[row * (60 + new) :][: asks_first - 15] = torch.nan
    found = arena.call(Contender("cpu", "pool", "contiguous", None), batch)()
    assert (found < 1).all(), "without sinks a mean of ones is one"
    assert torch.isfinite(found).all()


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    made = make_job("curve", tmp_path_factory.mktemp("curve"), quick=True)
    curve.run(made)
    return made.results


def test_the_times_of_a_batch_are_in_proportion_to_its_contiguous_rows(record):
    ceiling = record["ceiling"]
    assert ceiling["read_bytes_s"] == max(ceiling["read"].values())
    refused = [row for row in record["rows"] if row["status"] != "ok"]
    assert refused, "sdpa has no sinks"
    assert all(row["sinks"] and row["backend"] == "sdpa" for row in refused)
    timed = [row for row in record["rows"] if row["status"] == "ok"]
    assert any(row["sinks"] and row["window"] == 32 for row in timed)
    for row in timed:
        if row["layout"] == "contiguous":
            assert row["ratio"] == row["ratio_low"] == row["ratio_high"] == 1.0
        floors = {
            "reading": row["bytes"] / ceiling["read_bytes_s"],
            "arithmetic": row["flops"] / ceiling["product_flops_s"],
        }
        assert row["floor_s"] == floors[row["bound"]] == max(floors.values())
        assert row["share"] == pytest.approx(row["floor_s"] / row["median_s"])


def test_what_fails_or_is_refused_is_a_row_and_not_timed(tmp_path, monkeypatch):
    call = Arena.call

    def fails(arena, who, batch):
        if who.layout == "paged" and who.page_tokens == 32:
            raise RuntimeError("a fault\nin a kernel")
        return call(arena, who, batch)

    monkeypatch.setattr(Arena, "call", fails)
    monkeypatch.setattr(curve, "batches", lambda *_: [RAGGED])
    monkeypatch.setattr(curve, "windowed_batches", lambda *_: [])
    made = make_job("curve", tmp_path, quick=True)
    curve.run(made)
    bad = [row for row in made.results["rows"] if row["status"] != "ok"]
    assert {(row["page_tokens"], row["reason"]) for row in bad} == {
        (32, "RuntimeError: a fault in a kernel")
    }
    assert all("median_s" not in row and row["share"] is None for row in bad)
    shown = "\n".join(DRAWN["curve"](made.results))
    assert "pages of 32 tokens" in shown
    assert "a fault in a kernel" in shown


def made_up(record):
    """Return the record with ratios that are easy to find again."""
    rows = [dict(row) for row in record["rows"]]
    for row in rows:
        middle = 1.0 if row["layout"] == "contiguous" else 1 + (row["page_tokens"] or 2) / 1000
        row |= {"ratio": middle, "ratio_low": middle - 0.01, "ratio_high": middle + 0.02}
    return {**record, "rows": rows}


def test_the_picture_shows_each_batch_with_its_intervals_beside_what_was_published(record):
    chart = draw(made_up(record))
    assert "+0.1 % with pages of 1, +25.6 % with pages of 256" in chart.description
    decodes, prefills = chart.figure.axes
    for axes, published in ((decodes, [10.0]), (prefills, [37.0, 42.0])):
        level = [
            line.get_ydata()[0] for line in axes.get_lines() if len(set(line.get_ydata())) == 1
        ]
        assert set(level) >= {0.0, *published}
        lines = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert len(lines) == len(axes.get_legend_handles_labels()[0]) == 5
        assert list(lines[0].get_ydata()) == pytest.approx([0.1, 1.6, 3.2, 6.4, 12.8, 25.6])
        bars = axes.collections[0].get_segments()
        assert np.array(bars[0])[:, 1] == pytest.approx([-0.9, 2.1])


def test_without_two_layouts_of_ours_there_is_no_picture(record):
    rows = [row for row in record["rows"] if row["backend"] == "sdpa"]
    assert draw({**record, "rows": rows}) is None


def test_the_table_says_how_much_longer(record):
    shown = " ".join("\n".join(DRAWN["curve"](made_up(record))).split())
    assert "+1.6 % (+0.6 to +3.6)" in shown
    assert "| cpu decode 4 x 64, 8/2x64 |" in shown
    assert "| cpu decode 4 x 64, 8/2x64, window 32, sinks |" in shown


@pytest.mark.further  # layouts that tests/kernels reads through the interpreter too
def test_triton_reads_what_a_gpu_is_measured_on():
    assert "4 passed" in run_interpreted("tests/measure/triton_interpreted.py")
