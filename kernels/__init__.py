"""Attention and cache kernels, and KV memory that really exists.

One function for decode and one for prefill read the KV of a batch through the layout an allocator
gives (`allocators.base.BlockTable` or `Strided`); back ends are interchangeable and `probe` says,
with a reason, which of them can do what.

Caches hold keys or values of one layer, either as pages `[pages, page_tokens, kv_heads, head_dim]`
or flat `[slots, kv_heads, head_dim]`.  Slot s of a paged cache is `[s // page_tokens,
s % page_tokens]`; both views may be strided as long as a head's `head_dim` numbers are adjacent.

Importing this package imports neither torch nor triton; the first call of a kernel does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kernels.registry import BACKENDS, probe
from kernels.support import Support

if TYPE_CHECKING:
    from kernels.attention import decode, prefill
    from kernels.cache import copy_slots, load, store
    from kernels.rows import Rows, new_slots, place

#: what is imported on first use, because it needs torch
LAZY = {
    "decode": "kernels.attention",
    "prefill": "kernels.attention",
    "store": "kernels.cache",
    "load": "kernels.cache",
    "copy_slots": "kernels.cache",
    "Rows": "kernels.rows",
    "place": "kernels.rows",
    "new_slots": "kernels.rows",
}

__all__ = [
    "BACKENDS",
    "Rows",
    "Support",
    "copy_slots",
    "decode",
    "load",
    "new_slots",
    "place",
    "prefill",
    "probe",
    "store",
]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)
