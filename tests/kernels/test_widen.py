"""How the CPU kernel reads 16-bit numbers: compiled or not, the same bits as torch."""

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")

from kernels.cpu_kernel import widen  # noqa: E402

PATTERNS = np.arange(1 << 16, dtype=np.uint16)


@numba.njit
def widened(bits):
    out = np.empty(len(bits), dtype=np.float32)
    for i in range(len(bits)):
        out[i] = widen(bits[i])
    return out


@pytest.mark.parametrize(
    ("kind", "torch_type"), [(np.uint16, torch.bfloat16), (np.int16, torch.float16)]
)
def test_every_number_is_widened_to_the_bit(kind, torch_type):
    bits = PATTERNS.view(kind)
    expected = torch.from_numpy(bits.view(np.int16)).view(torch_type).float().numpy()
    compiled = widened(bits)
    plain = np.array([widen(x) for x in bits])
    assert plain.dtype == np.float32
    assert np.array_equal(plain.view(np.uint32), compiled.view(np.uint32))
    where = np.isfinite(expected)  # a cache never holds infinities and NaNs
    assert where.sum() > 60_000
    assert np.array_equal(compiled[where].view(np.uint32), expected[where].view(np.uint32))


def test_a_float32_stays_as_it_is():
    assert widen(np.float32(1.5)) == np.float32(1.5)
    assert widened(np.array([1.5, -0.0], dtype=np.float32)).tolist() == [1.5, -0.0]
