"""Layers with a window: the same tokens from every manager, whatever lies behind the window."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from allocators.base import Unsupported
from allocators.contiguous import Contiguous
from allocators.layered.jenga import Jenga
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost.layers import LayerSpec
from harness.executors.model.attend import layers_in_memory
from harness.executors.model.decoder import DecoderError, check_decodable
from kernels.memory import backing_for
from tests.executors.model.serving_cases import GEMMA, GPT_OSS, geometry, requests, serve

#: tokens of a step; a ring holds as many behind a window
BUDGET = 40
ROOMY = 1500
SHAPES = {"gemma3": GEMMA, "gpt_oss": GPT_OSS}
#: policy, knobs, and a pool in which its sequences have to make room for each other
MANAGERS = {
    "contiguous": (Contiguous, {"reservation": "max", "placement": "first_fit"}, 140),
    "contiguous_grow": (Contiguous, {"reservation": "grow", "placement": "first_fit"}, 140),
    "paged": (Paged, {"block_size": 4}, 80),
    "paged_uniform": (Paged, {"block_size": 4, "groups": "uniform"}, 100),
    "paged_split": (Paged, {"block_size": 4, "groups": "split"}, 75),
    "jenga": (Jenga, {"block_size": 4}, 80),
    "virtual": (Virtual, {"page_size": "64KiB"}, 150),
    "virtual_sliced": (
        Virtual, {"page_size": "64KiB", "layout": "sliced", "deferred": False}, 100),
    "virtual_sizes": (Virtual, {"page_size": "128KiB", "window_page_size": "64KiB"}, 150),
}  # fmt: skip


def manager(name, tokens=None, host=0, shape=GEMMA, **knobs):
    policy, given, tight = MANAGERS[name]
    pool = geometry(shape, tokens or tight, host, max_len=96, max_seqs=12, step_tokens=BUDGET)
    return policy.of(pool, **{**given, **knobs})


def table(n=5):
    return requests(n, seed=2, longest=(30, 45))


@cache
def alone(mode="greedy", n=5, name="gemma3"):
    """Serve one request after the other where every token of every layer is kept."""
    memory = manager("contiguous", ROOMY, shape=SHAPES[name], ring=False)
    return serve(memory, table(n), mode, name, policy="static", max_num_batched_tokens=1)


class Poison:
    """After every step, writes NaN to all memory that the allocator does not say is needed.

    With `short`, also to the last position that the next token still reads of a window.
    """

    behind = 0

    def __init__(self, memory, short=0):
        self._memory, self._short = memory, short

    def on_step(self, step):
        memory, allocator = self._memory, step.allocator
        memory.wait()
        kept = []
        for index, group in enumerate(allocator.geometry.layer_groups):
            for row in np.flatnonzero(allocator.active).tolist():
                slots = allocator.layer_slots(row, index)
                first = int(group.first_read(allocator.length[row]))
                first += self._short if group.kind == "sliding" and first else 0
                type(self).behind += int((slots[:first] < 0).sum())
                kept.append((index, slots[first:], memory.read(index, slots[first:])))
        self._spoil()
        for index, slots, numbers in kept:
            memory.write(index, slots, numbers)

    def _spoil(self):
        memory = self._memory
        if not hasattr(memory, "members"):
            memory._piece.numbers.fill_(torch.nan)
            return
        for index, member in enumerate(memory.members):
            t = member.shape.page_tokens
            pages = np.flatnonzero(member.page_map.places)
            slots = (pages[:, None] * t + np.arange(t)).ravel()
            if len(slots):
                memory.write(index, slots, torch.full_like(memory.read(index, slots), torch.nan))


CASES = [(name, "continuous") for name in MANAGERS if name != "contiguous_grow"]
CASES += [(name, "chunked") for name in ("contiguous", "paged", "virtual")]


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_a_tight_pool_and_poison_behind_windows_change_no_token(name, policy):
    Poison.behind = 0
    budget = BUDGET if policy == "continuous" else 16
    seen = serve(
        manager(name), table(), shape="gemma3", watchers=[Poison], watch_memory=True,
        policy=policy, max_num_batched_tokens=budget,
    )  # fmt: skip
    assert seen.digest == alone().digest
    assert len(set(seen.outputs[0].ravel().tolist())) > 3, "the model says one thing only"
    assert seen.log.timeline["batch"].max() > 1 or name == "contiguous"
    assert seen.preemptions or name == "contiguous", "the pool was meant to be tight"
    assert (Poison.behind > 0) == (name != "paged_uniform"), "nothing was given back"
    assert bool(seen.maps) == name.startswith("virtual")


@pytest.mark.parametrize("name", ["contiguous", "paged", "virtual"])
def test_what_a_window_still_reads_is_not_behind_it(name):
    """The poison is seen if it comes one position too far."""
    with pytest.raises(ArithmeticError, match="not finite"):
        serve(
            manager(name, ROOMY), table(), shape="gemma3", max_num_batched_tokens=BUDGET,
            watchers=[lambda memory: Poison(memory, short=1)],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "tokens", "mode", "preemption"),
    [
        ("contiguous_grow", 280, "parallel", "swap"),
        ("paged", 90, "beam", "swap"),
        ("jenga", 160, "parallel", "recompute"),
        ("virtual", 300, "parallel", "swap"),
    ],
)
def test_copies_and_swaps_of_layer_groups_change_no_token(name, tokens, mode, preemption):
    host = ROOMY if preemption == "swap" else 0
    seen = serve(
        manager(name, tokens, host), table(3), mode, "gemma3", preemption=preemption,
        watchers=[Poison], watch_memory=True, max_num_batched_tokens=BUDGET,
    )  # fmt: skip
    assert seen.digest == alone(mode, 3).digest
    assert seen.copies
    assert bool(seen.swaps) == (preemption == "swap")


@pytest.mark.parametrize(("name", "tokens"), [("contiguous", 140), ("paged", 72), ("virtual", 110)])
def test_gpt_oss_emits_the_same_tokens_too(name, tokens):
    seen = serve(
        manager(name, tokens, shape=GPT_OSS), table(), shape="gpt_oss", watchers=[Poison],
        policy="chunked", max_num_batched_tokens=16,
    )  # fmt: skip
    assert seen.digest == alone("greedy", 5, "gpt_oss").digest
    assert seen.preemptions or name == "contiguous", "the pool was meant to be tight"


def test_a_prefix_that_every_layer_still_holds_is_read_again():
    memory = manager("paged", ROOMY, prefix_index="hash")
    seen = serve(memory, table(), shape="gemma3", max_num_batched_tokens=BUDGET)
    assert seen.hits
    assert seen.digest == alone().digest


def test_layers_are_numbered_as_an_allocator_groups_them():
    groups = manager("paged").geometry.layer_groups
    assert [(group.kind, group.layers) for group in groups] == [("sliding", 1)] * 5 + [("full", 1)]
    assert layers_in_memory([20, None, 20, 20, 20, 20], groups) == [0, 5, 1, 2, 3, 4]
    with pytest.raises(Unsupported, match="layers keep windows of"):
        layers_in_memory([20, None, None, 20, 20, 20], groups)


def test_memory_of_handles_made_ahead_is_refused():
    with pytest.raises(Unsupported, match="handles=on_demand"):
        backing_for(manager("virtual"), dtype=torch.float32, handles="ahead")


def test_other_kinds_of_layers_are_refused_in_one_line():
    for changed, message in (
        ([LayerSpec("chunked", 5, window=20), LayerSpec("full", 1)], "chunked layers have no"),
        ([LayerSpec("sliding", 4, window=20), LayerSpec("full", 2)], "1 full and 5 sliding are"),
        ([LayerSpec("sliding", 5, window=20), LayerSpec("full", 1, kv_heads=2)], "with kv_heads"),
    ):
        with pytest.raises(DecoderError, match=message):
            check_decodable(replace(GEMMA, layer_groups=changed))
    with pytest.raises(DecoderError, match="family llama have no decoder"):
        check_decodable(replace(GEMMA, family="llama"))
