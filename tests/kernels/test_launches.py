"""What Triton is given on its way to a GPU that is not here: pointers, and what is compiled."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from allocators.base import Grant, Strided
from kernels import copy_slots, decode, place, prefill, store
from kernels.memory import backing_for
from tests.executors.model.serving_cases import contiguous, paged, virtual
from tests.places import ROOT

triton = pytest.importorskip("triton")

from tests.kernels.fake_triton import KERNELS, check_pointers, launches  # noqa: E402


@pytest.fixture
def late_row():
    """Virtual memory in which the second range is mapped and the first is not."""
    with backing_for(virtual(600), dtype=torch.float32) as memory:
        memory.map(Grant(maps=np.array([[1, 0, 3]])))
        yield memory


def test_what_begins_with_an_unmapped_page_is_no_pointer_for_triton(late_row):
    with pytest.raises(ValueError, match="cannot be accessed from Triton"):
        check_pointers([late_row.keys(0)])


def test_kernels_are_launched_over_memory_that_begins_unmapped(late_row):
    k, v = late_row.keys(0), late_row.values(0)
    base = k.shape[1] * late_row.shape.pages_per_range
    new = torch.ones((2, *k.shape[2:]))
    rows = place(Strided(np.array([base]), np.array([2])), k)
    with launches() as seen:
        store(new, new, k, v, np.array([base, base + 1]), backend="triton")
        decode(new[:1], k, v, rows, 1.0, backend="triton")
        rows = place(Strided(np.array([base]), np.array([2])), k, [2])
        prefill(new, k, v, rows, None, 1.0, backend="triton")
        copy_slots([k], np.array([[base, base + 1, 1]]), backend="triton")
    names = [name for name, *_ in seen.launched]
    assert sorted(set(names)) == sorted(kernel.__name__ for kernel in KERNELS)


@pytest.mark.parametrize("make", [paged, contiguous, virtual])
def test_memory_copies_with_the_kernel_where_it_can_run(make):
    copies = Grant(copies=np.array([[0, 9, 1], [9, 0, 1]]))
    with backing_for(make(600), dtype=torch.float32) as memory:
        if hasattr(memory, "page_map"):
            memory.map(Grant(maps=np.array([[1, 0, 0]])))
        with launches() as seen:
            memory.copy(copies)
        caches = len(memory._tensors) if hasattr(memory, "page_map") else 2 * 2
        # Two slots that change places go through a buffer.
        assert [name for name, *_ in seen.launched] == ["move_slots"] * 2 * caches
    with backing_for(make(600), dtype=torch.float32) as memory:
        assert memory.mover == "reference"


@pytest.mark.skipif(not shutil.which("gcc"), reason="Triton's launcher is compiled by gcc")
def test_triton_s_own_launcher_takes_what_it_is_given(tmp_path):
    """Its C code parses the arguments and asks a made-up libcuda about each pointer."""
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"]
    source = ROOT / "tests" / "kernels" / "stub_libcuda.c"
    subprocess.run([*command, str(tmp_path / "libcuda.so.1"), str(source)], check=True)
    variables = {"TRITON_LIBCUDA_PATH": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    run = subprocess.run(
        [sys.executable, "-m", "tests.kernels.real_launcher", str(tmp_path)],
        cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # A store, decode and its reduction, a prefill, a copy.
    assert "launched 5" in run.stdout, run.stdout + run.stderr[-3000:]
    assert "refused: Pointer argument" in run.stdout
