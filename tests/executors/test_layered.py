"""The simulated executor of a model with layer groups: what it tells the cost model, and when."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, Allocator, Demand, Geometry, Grant, Prompt
from allocators.contiguous import Contiguous
from allocators.layered.base import LayeredAllocator
from allocators.layers import LayerGroup
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, LayerSpec, ModelShape, Roofline, Work
from harness.cost.kv import layer_groups
from harness.cost.reads import decode_reads
from harness.engine.plan import Chunk, Plan
from harness.executors.simulated import SimulatedExecutor
from harness.results.runlog import PARTS
from tests.places import shipped

H100 = shipped(HardwareSpec, "hardware", "h100-80gb")
LAYERS = [
    LayerSpec("full", 2),
    LayerSpec("sliding", 3, 100),
    LayerSpec("chunked", 1, 64),
    LayerSpec("state", 1, state_bytes=8192, parameters=10**6),
    LayerSpec("cross", 1, encoder_tokens=33),
]
MODEL = ModelShape("toy", "llama", 8, 1024, 8, 4, 128, 4096, 1000, 4096, layer_groups=LAYERS)
GROUPS = layer_groups(MODEL)
GEOMETRY = Geometry(2000, 8, 4096, 16, layers=8, layer_groups=GROUPS, pool_bytes=10**9)
LENGTHS = np.array([63, 5, 99, 640])


class Tables(SimpleNamespace):
    """What the executor asks of an allocator that only ever has tables."""

    table_entries = LayeredAllocator.table_entries


def executor(block_tables=True):
    pool = Tables(geometry=GEOMETRY, block_tables=block_tables, page_bytes=0, pages_per_group=0)
    return SimulatedExecutor(Roofline(MODEL, H100, CostSpec()), pool)


@pytest.mark.parametrize("block_tables", [True, False])
def test_a_window_is_its_steps(block_tables):
    priced = executor(block_tables)
    steps = [priced.step(Plan([]), LENGTHS + j) for j in range(130)]
    window = executor(block_tables).window([], LENGTHS, 130)
    assert window.tolist() == steps


def test_each_layer_group_is_told_what_its_tokens_read():
    told = []

    class Watching(Roofline):
        def step(self, work):
            told.append(work)
            return super().step(work)

    pool = executor()._allocator
    SimulatedExecutor(Watching(MODEL, H100, CostSpec()), pool).step(Plan([]), LENGTHS)
    full, sliding, chunked, state, cross = told[0].decode_context_tokens.tolist()
    assert (full, sliding) == (63 + 5 + 99 + 640, 63 + 5 + 99 + 100)
    assert (chunked, state, cross) == (63 + 5 + 35 + 64, 4, 4 * 33)


def test_a_piece_of_a_prompt_pays_for_what_it_reads_alone():
    seconds = {}
    for past in (1000, 3048):
        piece = Chunk(SimpleNamespace(sequences=1), past, 512, last=False, hit_tokens=0)
        priced = executor()
        priced.step(Plan([], chunks=[piece]), np.empty(0, dtype=np.int64))
        seconds[past] = priced.parts[PARTS.index("attention")]
    # Windows are full, and eight chunks are begun and ended, behind 1000 tokens as behind 3048.
    full = executor()._cost.layers_of_blocks(16)[0].prices
    more = 2048 * 512 * full.prefill_pair_s * full.prefill_slowdown
    assert seconds[3048] - seconds[1000] == pytest.approx(more)


def test_a_draft_reads_what_its_model_would_within_windows():
    piece = Chunk(SimpleNamespace(sequences=1), 3048, 5, last=False, hit_tokens=0)
    none = np.empty(0, dtype=np.int64)
    alone, drafted = executor(), executor()
    drafted._draft_cost = 0.1
    more = drafted.step(Plan([], chunks=[piece], draft_steps=3), none) - alone.step(
        Plan([], chunks=[piece]), none
    )
    read = decode_reads(GROUPS, np.array([3049]))[:, 0]
    decode = Work(decode_seqs=1, decode_context_tokens=read, sampled=1, block_tokens=16)
    assert more == pytest.approx(0.3 * drafted._cost.step_s(decode))


def test_each_table_that_is_sent_counts():
    pool = executor()._allocator
    # one for each of three layer groups that grow; a state is one block, 33 tokens three
    assert pool.table_entries(640) == 3 * 40 + 1 + 3
    assert pool.table_entries(np.array([16, 17])).tolist() == [3 + 4, 6 + 4]
    sent = executor()._work(Plan([]), LENGTHS).table_bytes
    assert sent == 4 * 124 * BLOCK_TABLE_ENTRY_BYTES
    assert executor(block_tables=False)._work(Plan([]), LENGTHS).table_bytes == 0


def windowed():
    """A pool of a model with a full and a sliding layer group."""
    model = replace(
        MODEL, layers=6, layer_groups=[LayerSpec("full", 3), LayerSpec("sliding", 3, 9)]
    )
    return Geometry(
        2000, 8, 4096, layers=6, layer_groups=layer_groups(model), pool_bytes=10**8, step_tokens=64
    )


@pytest.mark.parametrize(("groups", "tables"), [("uniform", 1), ("hybrid", 2), ("split", 2)])
def test_a_policy_says_how_many_tables_it_sends(groups, tables):
    knobs = {"window_share": 0.5} if groups == "split" else {}
    pool = Paged.of(windowed(), block_size=16, groups=groups, **knobs)
    assert pool.table_entries(33) == 3 * tables
    assert pool.table_entries(np.array([16, 17])).tolist() == [tables, 2 * tables]


@pytest.mark.parametrize(
    "build", [partial(Contiguous.of, reservation="max", placement="first_fit"), Virtual.of]
)
def test_where_addresses_are_contiguous_no_table_is_sent(build):
    pool = build(windowed())
    assert pool.table_entries(33) == 0
    priced = SimulatedExecutor(Roofline(MODEL, H100, CostSpec()), pool)
    assert priced._work(Plan([]), LENGTHS).table_bytes == 0


def test_a_uniform_model_sends_one_table():
    paged = Paged(Geometry(640, 8, 256), block_size=8)
    assert paged.table_entries(50) == 7
    assert Allocator.table_entries(Tables(block_tables=False), 50) == 0
    paged.admit(np.array([0]), Prompt(50), Demand(50, 1))
    priced = SimulatedExecutor(Roofline(MODEL, H100, CostSpec()), paged)
    assert priced._work(Plan([]), np.array([50])).table_bytes == 7 * BLOCK_TABLE_ENTRY_BYTES


# -- swaps -------------------------------------------------------------------------------------
ROWS = np.array([[0, 160, 16, 0], [16, 176, 16, 0], [0, 0, 1, 3], [8, 8, 16, 1]])


@pytest.mark.parametrize(
    ("merge", "calls"),
    # two tensors a layer: of 2, 2, 1 and 3 layers, of which the first two rows follow each other
    [("none", 2 * (2 + 2 + 1 + 3)), ("runs", 2 * (2 + 1 + 3)), ("all", 2 * (2 + 1 + 3))],
)
def test_a_swap_is_a_transfer_for_each_tensor_of_its_layer_group(merge, calls):
    cost = Roofline(MODEL, H100, CostSpec(swap_merge=merge, swap_overlap="step"))
    pool = executor()._allocator
    seconds = cost.grant_s(Grant(swaps_out=ROWS), pool)
    assert seconds == pytest.approx(calls * 5e-6)
    assert cost.grant_s(Grant(swaps_in=ROWS), pool) == seconds


def test_the_bytes_of_a_swap_are_those_of_its_layer_group():
    free = Roofline(MODEL, H100, CostSpec(swap_transfer_us=0))
    pool = executor()._allocator
    sent = [32, 16, 0, 1]
    moved = sum(n * group.slot_bytes for n, group in zip(sent, GROUPS, strict=False))
    seconds = free.grant_s(Grant(swaps_out=ROWS), pool)
    assert seconds == pytest.approx(moved / (64e9 * 0.8))


def test_a_latent_is_one_tensor():
    model = shipped(ModelShape, "model", "deepseek-v2-lite")
    groups = layer_groups(model)
    assert groups == (LayerGroup("latent", 27, 27 * 576 * 2),)
    pool = Tables(geometry=Geometry(100, 1, 10, layer_groups=groups, pool_bytes=10**9))
    cost = Roofline(model, H100, CostSpec(swap_overlap="step"))
    assert cost.grant_s(Grant(swaps_in=ROWS[:1]), pool) == pytest.approx(27 * 5e-6)
