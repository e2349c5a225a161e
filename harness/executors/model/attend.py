"""Attention over real memory: a layer's new KV is stored, then read with all before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import kernels
from allocators.base import IntArray, Layout, Unsupported
from allocators.layers import LayerGroup
from harness.executors.model.graphs import Caches
from kernels.rows import Rows

if TYPE_CHECKING:
    from harness.executors.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the tokens of a pass lie in the layers of one layer group, the same in each of them.

    With `writers`, what is stored at slot i is the KV of token `writers[i]`, not i.
    """

    slots: torch.Tensor
    parts: list[Rows]
    writers: torch.Tensor | None = None


class AttendInMemory:
    """See `decoder.core.Attend`; what it needs is placed once for all layers of a layer group.

    All is stored before anything is read, so a piece may read what another of the same pass
    computes (a prefix that both have, found as soon as it was granted).
    """

    def __init__(
        self,
        decoder: Decoder,
        backend: str,
        caches: Caches,
        placed: list[Placed],
        group_of: list[int],
    ) -> None:
        """`placed` by layer group, `group_of` says which that of each layer is."""
        self._decoder, self._backend, self._caches = decoder, backend, caches
        self._placed = [placed[index] for index in group_of]

    def __call__(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        keys, values = self._caches[layer]
        here, backend, decoder = self._placed[layer], self._backend, self._decoder
        kernels.store(k, v, keys, values, here.slots, writers=here.writers, backend=backend)
        out, at = torch.empty(q.shape, dtype=q.dtype, device=q.device), 0
        for rows in here.parts:
            single = rows.max_queries == 1
            to = at + rows.num_rows if single else len(q)
            part = (q[at:to], keys, values, rows)
            options = {
                "backend": backend,
                "out": out[at:to],
                "window": decoder.windows[layer],
                "sinks": None if decoder.sinks is None else decoder.sinks[layer],
            }
            if single:
                kernels.decode(*part, decoder.scale, **options)
            else:
                kernels.prefill(*part, None, decoder.scale, **options)
            at = to
        return out


def parts_of(layout: Layout, queries: IntArray, cache: torch.Tensor, backend: str) -> list[Rows]:
    """Place who decodes apart from who computes more: a GPU has a kernel for each.

    That of the CPU makes no difference.
    """
    longer = np.flatnonzero(queries > 1)
    decoding = int(longer[0]) if len(longer) else len(queries)
    if backend == "cpu" or decoding in (0, len(queries)):
        return [kernels.place(layout, cache, queries)]
    cut = np.arange(len(queries))
    return [
        kernels.place(layout.take(cut[:decoding]), cache, queries[:decoding]),
        kernels.place(layout.take(cut[decoding:]), cache, queries[decoding:]),
    ]


def layers_in_memory(windows: list[int | None], layer_groups: tuple[LayerGroup, ...]) -> list[int]:
    """Return the number that memory has for each layer of a model.

    Memory numbers layers by layer group; those of an allocator may be finer than the model's.
    Raises `Unsupported` if they keep anything else than the model's layers read.
    """
    if not layer_groups:
        return list(range(len(windows)))
    kept = [group.window or None for group in layer_groups for _ in range(group.layers)]
    numbers: dict[int | None, list[int]] = {}
    for number, window in enumerate(kept):
        numbers.setdefault(window, []).append(number)
    found = [numbers[window].pop(0) for window in windows if numbers.get(window)]
    if len(found) < len(windows) or any(numbers.values()):
        raise Unsupported(f"layers keep windows of {kept} tokens and read {windows}")
    return found
