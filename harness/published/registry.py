"""Every experiment: what makes its numbers, in the order of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.published import pagedattention
from harness.published.experiment import Values
from harness.published.tasks import Compare


@dataclass(frozen=True)
class Maker:
    """values: from runs to numbers. kind: what a set-up is run as."""

    values: Values
    kind: type[Compare] = Compare


MAKERS: Mapping[str, Maker] = {
    "pagedattention_fig2": Maker(pagedattention.fig2),
    "pagedattention_fig12": Maker(pagedattention.fig12),
    "pagedattention_fig13": Maker(pagedattention.fig13),
    "pagedattention_fig14": Maker(pagedattention.fig14),
    "pagedattention_fig15": Maker(pagedattention.fig15),
}
