"""Tensors in the form in which Triton takes them wherever they lie.

Triton's launcher asks the driver about the first byte of every tensor (cuPointerGetAttribute) and
refuses one behind which nothing is mapped.  A virtual tensor begins wherever its first range does,
mapped or not.  So a kernel is given a pointer into memory that is always there, the anchor, and how
many elements the tensor is away from it, a 64-bit integer.  Both are multiples of 16, which the
compiler is told, so loads stay as wide as from the tensor's own pointer; a bare address would not
be known to be aligned.
"""

from __future__ import annotations

from functools import cache

import torch

#: any size will do: nothing is ever read from an anchor
ANCHOR_NUMBERS = 64


def anchored(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return an anchor of the tensor's type on its device, and the elements from it to the tensor.

    Raises `ValueError` for a tensor that does not lie a whole number of elements away.
    """
    anchor = _anchor(tensor.device, tensor.dtype)
    elements, rest = divmod(tensor.data_ptr() - anchor.data_ptr(), tensor.element_size())
    if rest:
        raise ValueError(f"a tensor of {tensor.dtype} lies at no multiple of its element's size")
    return anchor, elements


@cache
def _anchor(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    # Kept for good: a captured graph has the address in it.
    return torch.empty(ANCHOR_NUMBERS, dtype=dtype, device=device)
