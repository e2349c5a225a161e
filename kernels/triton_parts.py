"""What the Triton kernels share.

Addresses follow `kernels.rows`: position p of row i is at q = offset[i] + p, in page
table[i, q // PAGE].  A row without a block table lies in one page (`CONTIGUOUS`), found once.

Numbers are summed in an order that depends on positions alone (fixed blocks, fixed splits), so a
row's result does not depend on the layout or on the rest of the batch.

Caches come as an anchor and the elements from it to the cache (`kernels.anchor`).  Strides and
other integers that may need 64 bits are 64 bits wide always: else their type would follow their
value, and a larger cache would compile another kernel.  What changes from call to call (splits, the
width of a table, slots of a cache) is not specialised on, for the same reason.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.rows import Rows

LOG2_E = tl.constexpr(1.4426950408889634)


def page_constant(rows: Rows) -> int:
    """A page size is compiled in; that of contiguous rows plays no part and is left out."""
    return 1 if rows.contiguous else rows.page_tokens


def adjacent(q: torch.Tensor) -> torch.Tensor:
    return q if q.stride(-1) == 1 else q.contiguous()


def widen(q: torch.Tensor) -> bool:
    """Triton's interpreter multiplies the bit patterns of bfloat16 in a dot; a GPU does not."""
    return triton.knobs.runtime.interpret and q.dtype == torch.bfloat16
