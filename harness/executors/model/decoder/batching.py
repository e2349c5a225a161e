"""How a flat batch goes through the matrices, so that a row's bits do not depend on its neighbours.

A matrix product's kernel, and with it the order of its sums, is chosen by the number of rows.  A
batch-invariant decoder therefore shows every kernel row counts for which that order is the same:

- CPU: the batch is padded to a multiple of 16 rows.  Measured with oneDNN and MKL for float32,
  bfloat16 and float16, one to four threads: row bits differ between some of 1 to 11 rows, and are
  the same for every multiple of 16.
- CUDA: cuBLAS chooses by the exact number of rows, so the padded batch is multiplied in tiles of
  exactly 64 rows.

Elementwise functions have the same trap on a CPU: `silu` uses one polynomial in its vector loop and
the C library in the remainder, and where the remainder falls depends on how threads split the
whole tensor.  `Batching.steady` gives such a function pieces that are neither split nor leave a
remainder.

The problem and the fixed-tile remedy: He et al., "Defeating Nondeterminism in LLM Inference",
Thinking Machines Lab, 2025.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

#: rows of a tile, by device type
TILE_ROWS = {"cpu": 16, "cuda": 64}
#: elements of a piece: under the 32768 at which torch uses threads, and whole vectors of any width
PIECE = 16384
#: bytes to which memory that goes into a matrix product is aligned: kernels are chosen by that too
ALIGNMENT = 256


class Batching:
    """Pads batches and applies matrices, batch-invariantly or not.

    `tile` is 1 if the batch needs no padding; `by_tile` says that each tile is its own product.
    """

    def __init__(self, device: torch.device, batch_invariant: bool) -> None:
        self.tile = TILE_ROWS.get(device.type, 64) if batch_invariant else 1
        self.by_tile = batch_invariant and device.type != "cpu"
        self._pieces = batch_invariant and device.type == "cpu"

    def rows(self, count: int) -> int:
        """Return the rows of a padded batch of `count` rows."""
        return -(-count // self.tile) * self.tile

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, [T, ...], with zero rows up to a whole number of tiles, in aligned memory."""
        count = x.shape[0]
        rows = self.rows(count)
        if self.tile == 1 or (rows == count and x.is_contiguous() and _aligned(x)):
            return x
        padded = x.new_zeros((rows, *x.shape[1:]))
        padded[:count] = x
        return padded

    def linear(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return x weight^T + bias.  x: a padded [T, in]; weight: [out, in]; returns [T, out]."""
        if not self.by_tile or x.shape[0] == self.tile:
            return functional.linear(x, weight, bias)
        out = x.new_empty((x.shape[0], weight.shape[0]))
        transposed = weight.t()
        for source, target in zip(x.split(self.tile), out.split(self.tile), strict=True):
            if bias is None:
                torch.mm(source, transposed, out=target)
            else:
                torch.addmm(bias, source, transposed, out=target)
        return out

    def steady(
        self, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
    ) -> torch.Tensor:
        """Return `function` of each element of `x`; it works in place and is elementwise.

        `x` is overwritten or copied first; do not use it again.
        """
        x = x.contiguous()
        if not self._pieces:
            return function(x)
        for piece in x.view(-1).split(PIECE):
            function(piece)
        return x


def _aligned(x: torch.Tensor) -> bool:
    return x.data_ptr() % ALIGNMENT == 0
