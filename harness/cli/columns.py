"""The columns of the table on the screen, and the legend that explains them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from harness.results.limits import main_limit
from harness.results.metrics import BY_NAME, Direction
from harness.results.numbers import short_number
from harness.results.runlog import ResultRow

MARK = "*"
#: letters in a line that every table and its legend fit
NARROW = 80


@dataclass(frozen=True)
class Column:
    """A metric on the screen: `header` may break into two lines, `scale` multiplies the value.

    direction: which values are better; by default that of the metric's definition.
    about: what the legend says of it, for a header that does not say it all.
    """

    metric: str
    header: str
    scale: float = 1.0
    about: str = ""
    direction: Direction | None = None

    @property
    def better(self) -> Direction:
        """Which values are better."""
        return self.direction or BY_NAME[self.metric].direction

    def text(self, value: float | int | None) -> str:
        """The value in at most six characters or so, `-` where it is undefined."""
        if value is None:
            return "-"
        if isinstance(value, int):
            return str(value)
        return short_number(value * self.scale, decimals=3)


COLUMNS: tuple[Column, ...] = (
    Column("token_share", "token\n%", 100.0, "token: share of the pool that holds live KV"),
    Column(
        "saturated_token_share", "sat.\n%", 100.0, "sat.: the same while requests wait for memory"
    ),
    Column("mean_batch", "mean\nbatch"),
    Column("requests_per_s", "req/s"),
    Column("output_tokens_per_s", "out\ntok/s"),
    Column("ttft_p50_s", "TTFT\np50 s"),
    Column(
        "normalized_latency_mean_s",
        "norm.\nms",
        1000.0,
        "norm.: mean end-to-end ms per output token",
    ),
    Column("preemptions", "pre-\nempt"),
    Column("sharing_saved", "saved\n%", 100.0, "saved: blocks saved by sharing"),
)
#: shown where a row has a prefix cache
HIT = Column("prefix_hit_rate", "hit\n%", 100.0, "hit: prompt tokens found in the prefix cache")
#: shown where limits are set that a request has to keep
GOOD = Column(
    "goodput_requests_per_s", "good\nreq/s", about="good: requests within every slo limit"
)
#: left out in this order where a table is too wide, those first that say the same in every row
SPARED = (
    "normalized_latency_mean_s", "mean_batch", "preemptions", "sharing_saved",
    "saturated_token_share", "token_share", "prefix_hit_rate",
)  # fmt: skip


def legend(shown: Sequence[Column], columns: Sequence[Column], by_run: bool = False) -> str:
    """Return what stands below a table: what its heads mean, and which of `columns` are hidden.

    `by_run` says that the best are marked within each run of a sweep.
    """
    about = [column.about for column in shown if column.about]
    if about and about[0].startswith("sat."):
        about[0] = "sat.: share of the pool that holds live KV while requests wait for memory"
    best = "best of its column and run" if by_run else "best of its column"
    text = f"{MARK} {best}. {'; '.join(about)}{'.' * bool(about)}"
    hidden = [c.header.replace("-\n", "").replace("\n", " ") for c in columns if c not in shown]
    if hidden:
        text += f" Not shown, but in the results: {', '.join(hidden)}."
    return textwrap.fill(text, NARROW, break_on_hyphens=False)


def limits_line(rows: Sequence[ResultRow]) -> str | None:
    """Return what kept the next request out of each allocator for longest; None if none says."""
    limits = [(row.allocator, main_limit(row.metrics)) for row in rows if row.ok]
    # Spaces that do not break, until the lines are filled.
    told = [f"{name}\u00a0{limit[0]}\u00a0{100 * limit[1]:.0f}" for name, limit in limits if limit]
    text = f"Limited by, % of the time: {', '.join(told)}."
    lines = textwrap.fill(text, NARROW, break_on_hyphens=False)
    return lines.replace("\u00a0", " ") if told else None
