"""What the Triton kernels share: a block of the online softmax, and facts of launches.

Addresses follow `kernels.rows`: position p of row i is at q = offset[i] + p, in page
table[i, q // PAGE].  A row without a block table lies in one page (`CONTIGUOUS`), found once.

Numbers are summed in an order that depends on positions alone (fixed blocks, fixed splits), so a
row's result does not depend on the layout or on the rest of the batch.

Caches come as an anchor and the elements from it to the cache (`kernels.anchor`).  Strides and
other integers that may need 64 bits are 64 bits wide always: else their type would follow their
value, and a larger cache would compile another kernel.  What changes from call to call (splits, the
width of a table, slots of a cache) is not specialised on, for the same reason.
"""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.rows import Rows

LOG2_E = tl.constexpr(1.4426950408889634)
#: the least rows that a tensor-core product takes
LEAST_ROWS = 16


@triton.jit
def absorb(q, k, v, seen, scale, peak, total, acc, WIDEN: tl.constexpr):
    """One block of the online softmax; q [M, D], k and v [N, D], seen [M, N]."""
    if WIDEN:
        q, k, v = q.to(tl.float32), k.to(tl.float32), v.to(tl.float32)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2_E)
    scores = tl.where(seen, scores, float("-inf"))
    high = tl.maximum(peak, tl.max(scores, 1))
    # A row of the block that has seen nothing yet would give inf - inf.
    base = tl.where(high == float("-inf"), 0.0, high)
    shrink = tl.exp2(peak - base)
    weights = tl.exp2(scores - base[:, None])
    total = total * shrink + tl.sum(weights, 1)
    acc = acc * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return high, total, acc


def key_block(dim_pad: int, itemsize: int) -> int:
    """Positions loaded at once: keys of a block take at most 16 KiB on chip, as values do."""
    return max(16, min(64, (16 << 10) // (dim_pad * itemsize)))


def page_constant(rows: Rows) -> int:
    """A page size is compiled in; that of contiguous rows plays no part and is left out."""
    return 1 if rows.contiguous else rows.page_tokens


def adjacent(q: torch.Tensor) -> torch.Tensor:
    return q if q.stride(-1) == 1 else q.contiguous()


def widen(q: torch.Tensor) -> bool:
    """Triton's interpreter multiplies the bit patterns of bfloat16 in a dot; a GPU does not."""
    return triton.knobs.runtime.interpret and q.dtype == torch.bfloat16
