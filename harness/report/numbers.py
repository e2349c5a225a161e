"""How numbers are written in a report, and which metrics stand in its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.results.metrics import BY_NAME
from harness.results.numbers import short_number
from harness.results.runlog import Row

Value = float | int | None
UNDEFINED = "–"


@dataclass(frozen=True)
class Shown:
    """A metric in a table: `title` above `unit`, the value times `scale`."""

    metric: str
    title: str
    unit: str
    scale: float = 1.0

    def text(self, value: Value) -> str:
        """The value in few digits."""
        if value is None:
            return UNDEFINED
        scaled = value if self.scale == 1.0 else value * self.scale
        return f"{scaled:,}" if isinstance(scaled, int) else number(scaled)

    @property
    def definition(self) -> str:
        return BY_NAME[self.metric].definition

    @property
    def direction(self) -> str:
        return BY_NAME[self.metric].direction

    def best(self, rows: Sequence[Row | None]) -> set[int]:
        """Indices of the best rows as printed; empty where none is better than another."""
        values = {
            index: row.metrics[self.metric]
            for index, row in enumerate(rows)
            if row is not None and row.ok and row.metrics.get(self.metric) is not None
        }
        texts = {index: self.text(value) for index, value in values.items()}
        if self.direction == "none" or len(set(texts.values())) < 2:
            return set()
        pick = max if self.direction == "higher" else min
        winner = pick(values, key=values.__getitem__)
        return {index for index, text in texts.items() if text == texts[winner]}


MAIN: tuple[Shown, ...] = (
    Shown("output_tokens_per_s", "Output", "tokens/s"),
    Shown("requests_per_s", "Served", "requests/s"),
    Shown("mean_batch", "Mean batch", "requests"),
    Shown("token_share", "Live KV", "% of pool", 100.0),
    Shown("saturated_token_share", "Live KV, sat.", "% of pool", 100.0),
    Shown("ttft_p50_s", "TTFT p50", "s"),
    Shown("ttft_p99_s", "TTFT p99", "s"),
    Shown("tpot_mean_s", "TPOT", "ms", 1000.0),
    Shown("normalized_latency_mean_s", "Norm. latency", "ms/token", 1000.0),
    Shown("preemptions", "Preempted", "requests"),
    Shown("prefix_hit_rate", "Prefix hits", "% of tokens", 100.0),
    Shown("sharing_saved", "Shared", "% of blocks", 100.0),
)
COSTS: tuple[Shown, ...] = (
    Shown("sharing_saved", "Blocks saved by sharing", "%", 100.0),
    Shown("hit_tokens", "Prefix hits", "tokens"),
    Shown("hit_bytes", "Saved by prefix hits", "GiB", 2.0**-30),
    Shown("preemptions", "Preemptions", "requests"),
    Shown("copied_bytes", "Copied in the pool", "GiB", 2.0**-30),
    Shown("map_calls", "Page maps", "calls"),
    Shown("map_s", "Mapping time", "s"),
    Shown("metadata_bytes_peak", "Tables, peak", "KiB", 2.0**-10),
    Shown("allocator_us_per_step", "Allocator, measured", "µs/step"),
)


def number(value: float, decimals: int = 3) -> str:
    """Three significant digits, thousands separated, no exponent where it can be helped."""
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return short_number(value, decimals=decimals)


def spoken(value: float) -> str:
    """A number within a sentence: three digits, without zeros that say nothing."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def percent(share: float) -> str:
    """A fraction in percent, with a unit."""
    size = 100 * share
    # The space does not break.
    return f"{size:.0f}\u00a0%" if size >= 9.95 else f"{size:.1f}\u00a0%"


def times(ratio: float) -> str:
    """How many times as much."""
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 1.95 else f"{ratio:.2f}"
