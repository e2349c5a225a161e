"""Replayed decoding of layer groups: the same tokens, and nothing read that a window has left."""

import numpy as np
import pytest
import torch

import kernels
from allocators.base import Demand, Prompt
from harness.executors.model import settings
from harness.executors.model.forward import Forward, Pieces
from harness.executors.spec import ExecutorSpec
from kernels.memory import backing_for
from tests.executors.model.serving_cases import GPT_OSS, LLAMA, decoder_of, serve
from tests.executors.model.test_graphs import Again
from tests.executors.model.test_windows import ROOMY, SHAPES, Poison, alone, manager, table
from tests.kernels.memory.cases import execute

#: manager, model, engine, tokens of a step, pool: tight enough that sequences are preempted
RUNS = [
    ("paged", "gpt_oss", "chunked", 16, 72),
    ("virtual", "gemma3", "continuous", 40, 150),
    pytest.param("contiguous", "gpt_oss", "chunked", 16, 320, marks=pytest.mark.further),
    pytest.param("jenga", "gemma3", "continuous", 40, 80, marks=pytest.mark.further),
    pytest.param("paged_split", "gpt_oss", "continuous", 40, 75, marks=pytest.mark.further),
]


@pytest.mark.parametrize(("name", "model", "policy", "budget", "tokens"), RUNS)
def test_replays_emit_the_same_tokens_with_poison_behind_windows(
    name, model, policy, budget, tokens
):
    Again.captures = Again.replays = 0
    seen = serve(
        manager(name, tokens, shape=SHAPES[model]), table(), shape=model, watchers=[Poison],
        capture=Again(), policy=policy, max_num_batched_tokens=budget,
    )  # fmt: skip
    assert seen.digest == alone("greedy", 5, model).digest
    assert 1 < Again.captures < Again.replays, "sizes were captured, and used again"
    assert seen.preemptions or name == "contiguous", "the pool was meant to be tight"


@pytest.mark.parametrize("name", ["paged", "virtual"])
def test_all_sizes_are_captured_before_there_is_any_kv(name):
    Again.captures = 0
    memory = manager(name, ROOMY, shape=GPT_OSS)
    options = {"max_num_batched_tokens": 40, "capture": Again(), "warm_up": True}
    seen = serve(memory, table(2), shape="gpt_oss", **options)
    assert seen.digest == alone("greedy", 2, "gpt_oss").digest
    # 1, 2, 4, 8, 16 rows, and one length
    assert Again.captures == 5


def test_rows_that_fill_a_batch_up_read_the_last_token_of_the_last_row(monkeypatch):
    """It is in memory in every layer group; the first of the row is behind the window."""
    seen, attend = [], kernels.decode
    monkeypatch.setattr(kernels, "decode", lambda *a, **k: seen.append(a[3]) or attend(*a, **k))
    allocator = manager("virtual", ROOMY, shape=GPT_OSS)
    with backing_for(allocator, dtype=torch.float32) as memory, torch.inference_mode():
        forward = Forward(decoder_of("gpt_oss"), allocator, memory, "cpu", capture=Again())
        rows, lengths = np.arange(3), np.array([5, 20, 70])
        for row, n in zip(rows, lengths, strict=True):
            grant = allocator.admit(rows[row : row + 1], Prompt(int(n)), Demand(int(n), 4))
            execute(memory, allocator, grant)
        prompts = Pieces(rows, np.zeros(3, int), lengths, np.arange(lengths.sum()) % 190)
        forward.run(prompts)
        # The next step of the last row leaves its first page behind the window.
        for _ in range(3):
            execute(memory, allocator, allocator.grow(rows))
        lengths = lengths + 3
        forward.run(Pieces(rows, lengths - 1, lengths, np.array([7, 8, 9])))
        full = next(i for i, g in enumerate(allocator.geometry.layer_groups) if g.kind == "full")
        bases = allocator.layer_layout(rows, full).base
        forward.close()
    for placed in seen[-2:]:
        assert placed.lengths.tolist() == [*lengths, 1]
        at = placed.table[:, 0].long() * placed.page_tokens + placed.offset
        assert at[3] - at[2] == lengths[2] - 1
    assert at[:3].tolist() == bases.tolist()


def test_on_a_gpu_page_groups_of_layer_groups_are_made_on_demand(monkeypatch):
    """What one gives back is released, and made anew for another, whose page-groups differ."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(settings, "free_bytes", lambda device: 1 << 40)
    for shape, handles in ((LLAMA, "ahead"), (GPT_OSS, "on_demand")):
        spec = ExecutorSpec("model", device="cuda")
        settings.settle(spec, shape)
        assert (spec.handles, spec.backend) == (handles, "triton")
