"""What becomes of the kernels that store and move slots on a GPU that is not here."""

import re

import numpy as np
import pytest
import torch

from kernels import copy_slots, store

pytest.importorskip("triton")

from tests.kernels.compiled import compiled
from tests.kernels.fake_triton import launches

SHAPES = {"8 x 128": (8, 128), "40 x 128": (40, 128), "6 x 80": (6, 80)}


def caches(heads, dim, dtype=torch.bfloat16):
    return torch.zeros((2, 9, 16, heads, dim), dtype=dtype)


def widths(found):
    """The kinds of loads and stores of numbers; slots and writers are single words of 64 bits."""
    return set(re.findall(r"(?:ld|st)\.global\S*", found.ptx)) - {"ld.global.b64"}


@pytest.mark.parametrize("writers", [None, torch.tensor([2, 1, 1])], ids=["in order", "chosen"])
def test_one_launch_stores_keys_and_values(writers):
    k, v = caches(8, 128)
    new = torch.ones((3, 8, 128), dtype=torch.bfloat16)
    slots = np.array([7, 2, 2])
    with launches() as seen:
        store(new, new, k, v, slots, writers=writers, backend="triton")
    assert [(name, grid) for name, grid, _ in seen.launched] == [("store_slots", (3, 1, 1))]


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    "shape", ["8 x 128", "6 x 80", pytest.param("40 x 128", marks=pytest.mark.further)]
)
def test_numbers_are_stored_16_bytes_at_a_time(shape, capability):
    heads, dim = SHAPES[shape]
    k, v = caches(heads, dim)
    new = torch.ones((3, 2 * heads, dim), dtype=torch.bfloat16)
    parts = new[:, :heads], new[:, heads:]
    call = compiled(lambda: store(*parts, k, v, np.arange(3), backend="triton"), capability)
    found = call["store_slots"]
    assert widths(found) == {"ld.global.v4.b32", "st.global.v4.b32"}
    assert found.spilled == found.shared == 0


@pytest.mark.parametrize("capability", [80, 90])
def test_tokens_that_lie_whole_are_copied_16_bytes_at_a_time(capability):
    copies = np.array([[0, 20, 3]])
    call = compiled(lambda: copy_slots(caches(8, 128), copies, backend="triton"), capability)
    found = call["move_slots"]
    assert widths(found) == {"ld.global.v4.b32", "st.global.v4.b32"}
    assert found.spilled == found.shared == 0
