"""Every experiment: what makes its numbers, in the order of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.published import claims, pagedattention, traces, vattention
from harness.published.experiment import TaskKind, Values
from harness.published.tasks import Compare


@dataclass(frozen=True)
class Maker:
    """values: from runs to numbers. kind: what a set-up is run as."""

    values: Values
    kind: TaskKind = Compare


MAKERS: Mapping[str, Maker] = {
    "pagedattention_fig2": Maker(pagedattention.fig2),
    "pagedattention_fig12": Maker(pagedattention.fig12),
    "pagedattention_fig13": Maker(pagedattention.fig13),
    "pagedattention_fig14": Maker(pagedattention.fig14),
    "pagedattention_fig15": Maker(pagedattention.fig15),
    "pagedattention_fig16": Maker(pagedattention.fig16),
    "pagedattention_fig17": Maker(pagedattention.fig17),
    "pagedattention_fig18": Maker(pagedattention.fig18),
    "pagedattention_fig19": Maker(pagedattention.fig19),
    "vattention_table8": Maker(vattention.table8, vattention.PageGroups),
    "vattention_fig15_maxbatch": Maker(vattention.largest_batches, vattention.LongPrompts),
    "vattention_overlap": Maker(vattention.overlap, vattention.Spikes),
    "vattention_deferred": Maker(vattention.deferred, vattention.MapShare),
    "vattention_offline": Maker(vattention.offline),
    "mooncake_hitrate": Maker(traces.mooncake, traces.HitRates),
    "claims": Maker(claims.claims, claims.WithTables),
}
