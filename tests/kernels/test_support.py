"""A probe says why not; what is unsupported is refused with that reason."""

import subprocess
import sys

import pytest
import torch

from allocators.base import Unsupported
from kernels import BACKENDS, copy_slots, decode, probe, store
from tests.kernels.cases import make

NO_GPU = not torch.cuda.is_available()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (("cpu", "cuda", "float32", 64, 16), "sees no CUDA device" if NO_GPU else "cannot read"),
        (("cpu", "cpu", "float64", 64, 16), "computes in float32, float16, bfloat16"),
        (("sdpa", "cpu", "float32", 64, 16), "contiguous rows, not pages"),
        (("triton", "cpu", "float32", 64, 16), "interpreter (TRITON_INTERPRET=1)"),
        (("triton", "cpu", "float32", 72, 16), "head sizes 64, 80, 96, 128, 256, not 72"),
        (("triton", "cpu", "float32", 64, 513), "pages of 1 to 512 tokens, not 513"),
        (("flash", "cpu", "float32", 64, 16), "float16 and bfloat16 only"),
        (("flash", "cpu", "float16", 64, 16), "run on CUDA devices, not on cpu"),
    ],
)
def test_a_refusal_has_a_reason(question, reason):
    support = probe(*question)
    assert not support.ok
    assert reason in support.reason


def test_what_is_supported_has_none():
    for question in (
        ("reference", "cpu", "float64", 33, 7),
        ("cpu", "cpu", "bfloat16", 80, 512),
        ("cpu", "cpu", torch.float16, 80, None),
        ("sdpa", "cpu", "float32", 64, None),
    ):
        support = probe(*question)
        assert support.ok
        assert support.reason == ""


def test_an_unknown_back_end_is_an_error():
    with pytest.raises(ValueError, match="backend must be one of reference, cpu, triton"):
        probe("cuda", "cpu", "float32", 64, 16)


def test_no_back_end_falls_back_silently():
    case = make([3, 9], page=4)
    for backend in BACKENDS:
        support = probe(backend, "cpu", "float32", 64, 4)
        if support.ok:
            decode(*case.args, case.scale, backend=backend)
        else:
            with pytest.raises(Unsupported) as refusal:
                decode(*case.args, case.scale, backend=backend)
            assert support.reason in str(refusal.value)


def test_store_and_copy_refuse_what_they_cannot():
    cache = torch.zeros((2, 4, 1, 64))
    token = torch.zeros((1, 1, 64))
    with pytest.raises(Unsupported, match="triton: triton needs a CUDA device"):
        store(token, token, cache, cache, [0], backend="triton")
    with pytest.raises(Unsupported, match="triton: triton needs a CUDA device"):
        copy_slots([cache], [[0, 1, 1]], backend="triton")


def test_arguments_that_disagree_are_errors():
    case = make([3], page=4)
    q, k, v, layout = case.args
    with pytest.raises(ValueError, match="one query a row"):
        decode(torch.cat([q, q]), k, v, layout, 1.0)
    with pytest.raises(ValueError, match="multiple of kv_heads"):
        decode(q[:, :3], k, v, layout, 1.0)
    with pytest.raises(ValueError, match="q is torch"):
        decode(q.double(), k, v, layout, 1.0)
    with pytest.raises(ValueError, match="different shapes or types"):
        decode(q, k, v[:1], layout, 1.0)
    with pytest.raises(ValueError, match="out is"):
        decode(q, k, v, layout, 1.0, out=q[:, :1])


def test_importing_kernels_imports_no_framework():
    code = (
        "import sys, kernels; print([m for m in ('torch', 'triton', 'numba') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
