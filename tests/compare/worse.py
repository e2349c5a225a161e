"""Allocators made worse on purpose."""

from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual


class LeakingContiguous(Contiguous):
    """Takes one slot more for each sequence than it will use."""

    def reserved_slots(self, prompt_tokens, demand):
        return super().reserved_slots(prompt_tokens, demand) + 1


class CoarsePaged(Paged):
    """Blocks of 256 tokens."""

    def __init__(self, geometry, *, block_size=16, **knobs):
        super().__init__(geometry, block_size=256, **knobs)


class CopyingVirtual(Virtual):
    """No copy-on-write: a fork copies all of its parent at once."""

    def __init__(self, geometry, *, sharing="alias", **knobs):
        super().__init__(geometry, sharing="copy", **knobs)
