"""What is asked of a cost model; the seconds alone follow from what each part takes."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from allocators.base import Allocator, Grant, IntArray
from allocators.layers import LayerGroup
from harness.cost.curves import FloatArray
from harness.cost.flat import Priced
from harness.cost.grants import PricedGrant

if TYPE_CHECKING:
    from harness.cost.roofline import Work


class CostModel(abc.ABC):
    """Prices steps and grants, the parts for the simulated executor; seconds throughout.

    With `layer_groups` of the model, what a step reads is told for each of them.
    """

    layer_groups: tuple[LayerGroup, ...] = ()

    @abc.abstractmethod
    def step(self, work: Work) -> Priced:
        """Return what one step takes, and on what; nothing for a step without any token."""

    @abc.abstractmethod
    def decode_window(
        self,
        seqs: int,
        context_tokens: int | IntArray,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> Priced:
        """Return what consecutive steps take in which `seqs` sequences decode and sample.

        Step j reads context_tokens + j * seqs tokens of KV, or with layer groups
        context_tokens[:, j], and sends table_bytes[j] (or the same number each step).  Arrays of
        [steps]; bitwise that of `step` of each.
        """

    @abc.abstractmethod
    def grant(self, grant: Grant, allocator: Allocator) -> PricedGrant:
        """Return what a grant asks for before the step computes takes, and on what."""

    @abc.abstractmethod
    def overlapped_s(
        self, compute_s: float, grants: Sequence[Grant], allocator: Allocator
    ) -> float:
        """Return the seconds in which a step computes while its grants' bytes are sent."""

    def step_s(self, work: Work) -> float:
        """Return the seconds of one step."""
        return cast(float, self.step(work).seconds)

    def decode_window_s(
        self,
        seqs: int,
        context_tokens: int | IntArray,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> FloatArray:
        """Return the seconds of the steps of `decode_window`, [steps]."""
        priced = self.decode_window(seqs, context_tokens, steps, table_bytes, block_tokens)
        return cast(FloatArray, priced.seconds)

    def grant_s(self, grant: Grant, allocator: Allocator) -> float:
        """Return the seconds of what a grant asks for before the step computes."""
        return self.grant(grant, allocator).seconds
