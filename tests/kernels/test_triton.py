"""Triton kernels: correct through the interpreter, and compiled for GPUs that are not here."""

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton")

from kernels import decode, prefill, store  # noqa: E402
from tests.kernels.cases import make  # noqa: E402
from tests.kernels.compiled import compiled  # noqa: E402
from tests.kernels.interpreted import run_interpreted  # noqa: E402

further = pytest.mark.further


@pytest.mark.parametrize("which", ["not further", pytest.param("further", marks=further)])
def test_kernels_agree_with_float64_in_the_interpreter(which):
    said = run_interpreted("tests/kernels/triton_interpreted.py", which)
    assert " passed" in said
    assert "skipped" not in said


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_to_machine_code_without_a_gpu(capability):
    def each():
        flat = make([300, 40], [300, 1], dim=80, heads=(8, 2), dtype=torch.bfloat16)
        prefill(*flat.args, flat.queries, flat.scale, backend="triton")
        case = make([300, 40], page=7, dim=80, heads=(8, 2), dtype=torch.bfloat16)
        decode(*case.args, case.scale, backend="triton")
        new = torch.zeros((1, 2, 80), dtype=torch.bfloat16)
        store(new, new, case.k_cache, case.v_cache, np.array([3]), backend="triton")

    found = compiled(each, capability)
    assert set(found) == {"decode_split", "decode_reduce", "prefill_block", "store_slots"}
    for kernel in found.values():
        assert kernel.cubin
        # What the smallest of the GPUs in question gives to one block: 8.6 and 8.9 give 99 KiB.
        assert kernel.shared <= {80: 99, 90: 227}[capability] << 10, kernel.name
