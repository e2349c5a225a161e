"""Where Triton must not compile: within the capture of a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Raise `RuntimeError`, with the kernel and its types, where Triton would compile."""
    from triton import knobs

    def refuse(*, repr: str, **more: Any) -> NoReturn:
        raise RuntimeError(f"Triton would compile within a capture: {repr}")

    with knobs.runtime.scope():
        knobs.runtime.jit_cache_hook = refuse
        yield
