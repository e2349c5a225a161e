"""Triton kernels through Triton's interpreter; run by test_triton in a process of its own.

Shapes are small: the interpreter takes about a second for what a GPU does in microseconds.
"""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from kernels import copy_slots, decode, load, probe, store
from tests.kernels.cases import close, make

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_triton.py"

LAYOUTS = {
    "page-1": {"page": 1},
    "page-7": {"page": 7},
    "page-16": {"page": 16},
    "page-512": {"page": 512},
    "flat": {},
    "padded": {"padded": 5},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_decode(layout):
    case = make([1, 16, 270], **LAYOUTS[layout])
    close(decode(*case.args, case.scale, backend="triton", out=case.poisoned_out()), case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    case = make([1, 20], dtype=dtype, page=6)
    close(decode(*case.args, case.scale, backend="triton", out=case.poisoned_out()), case)


@pytest.mark.parametrize(
    ("dim", "heads"), [(80, (6, 2)), (96, (1, 1)), (128, (17, 1)), (256, (1, 1))]
)
def test_head_sizes_and_groups(dim, heads):
    case = make([3, 18], page=7, dim=dim, heads=heads)
    close(decode(*case.args, case.scale, backend="triton", out=case.poisoned_out()), case)


def test_results_do_not_depend_on_the_layout_or_the_batch():
    flat = make([40, 270])
    alone = make([40, 270], page=9)
    out = decode(*flat.args, flat.scale, backend="triton")
    assert torch.equal(out, decode(*alone.args, alone.scale, backend="triton"))


def test_a_row_does_not_depend_on_a_longer_one_beside_it():
    case = make([270, 1100], page=9)
    q, k, v, layout = case.args
    both = decode(q, k, v, layout, case.scale, backend="triton")
    first = replace(layout, table=layout.table[:1], lengths=layout.lengths[:1])
    assert torch.equal(decode(q[:1], k, v, first, case.scale, backend="triton"), both[:1])


def test_store_and_copies():
    cache = torch.full((3, 4, 2, 80), float("nan"))
    flat = torch.full((12, 2, 80), float("nan"))
    new = torch.randn((3, 2, 80))
    store(new, -new, cache, flat, np.array([6, 1, 11]), backend="triton")
    assert torch.equal(load(cache, [6, 1, 11]), new)
    assert torch.equal(load(flat, [6, 1, 11]), -new)
    assert cache.isnan().sum() == flat.isnan().sum() == 9 * 160
    writers = torch.tensor([2, 1, 1])
    store(-new, new, cache, flat, np.array([6, 1, 1]), writers=writers, backend="triton")
    assert torch.equal(load(cache, [6, 1, 11]), torch.stack([-new[2], -new[1], new[2]]))
    store(new, -new, cache, flat, np.array([6, 1, 11]), backend="triton")
    copy_slots([cache], np.array([[6, 1, 1], [1, 6, 1], [11, 0, 1]]), backend="triton")
    assert torch.equal(load(cache, [1, 6, 0, 11]), new[[0, 1, 2, 2]])
    copy_slots([cache], np.array([[0, 2, 2]]), backend="triton")
    assert torch.equal(load(cache, [2, 3]), new[[2, 0]])


def test_store_takes_views_of_one_projection_of_any_width():
    for heads, dim in ((3, 80), (9, 128), (1, 3)):
        cache = torch.full((2, 2, 4, heads, dim), float("nan"))
        wide = torch.randn((3, 5 * heads, dim))
        k, v = wide[:, heads : 2 * heads], wide[:, 3 * heads : 4 * heads]
        store(k, v, *cache, np.array([6, 1, 3]), backend="triton")
        assert torch.equal(load(cache[0], [6, 1, 3]), k)
        assert torch.equal(load(cache[1], [6, 1, 3]), v)
        assert cache.isnan().sum() == 2 * 5 * heads * dim


def test_copies_move_heads_that_lie_apart():
    whole = torch.full((2, 4, 5, 16), float("nan"))
    cache = whole[:, :, 1:4, :10]
    cache[:] = torch.randn(cache.shape)
    before, others = cache.clone(), whole.isnan().sum()
    copy_slots([cache], np.array([[6, 1, 2]]), backend="triton")
    assert torch.equal(load(cache, [1, 2]), load(before, [6, 7]))
    assert torch.equal(load(cache, [0, 3, 4, 5, 6, 7]), load(before, [0, 3, 4, 5, 6, 7]))
    assert whole.isnan().sum() == others


def test_the_probe_knows_the_interpreter():
    assert probe("triton", "cpu", "bfloat16", 80, 7).ok
