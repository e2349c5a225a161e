"""How numbers are written in a report, and which metrics stand in its tables."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from harness.results.best import Value, best_rows
from harness.results.metrics import BY_NAME, Direction
from harness.results.numbers import short_number
from harness.results.runlog import ResultRow

UNDEFINED = "–"
#: output_tokens_per_s divided by hardware.count; rows have it where that varies
PER_GPU = "output_tokens_per_s_per_gpu"


@dataclass(frozen=True)
class Shown:
    """A metric in a table: `title` above `unit`, the value times `scale`.

    meaning: the definition of one that is worked out here, for `harness.results` has none of it.
    zeros: it stands there even if it is zero in every row.
    """

    metric: str
    title: str
    unit: str
    scale: float = 1.0
    meaning: str = ""
    zeros: bool = False

    def text(self, value: Value) -> str:
        """The value in few digits."""
        if value is None:
            return UNDEFINED
        scaled = value if self.scale == 1.0 else value * self.scale
        return f"{scaled:,}" if isinstance(scaled, int) else number(scaled)

    @property
    def definition(self) -> str:
        return self.meaning or BY_NAME[self.metric].definition

    @property
    def direction(self) -> Direction:
        return "higher" if self.meaning else BY_NAME[self.metric].direction

    def best(self, rows: Sequence[ResultRow], runs: Sequence[Hashable]) -> set[int]:
        """Indices of the best rows, see `harness.results.best`."""
        return best_rows(rows, runs, self.metric, self.direction, self.text)


MAIN: tuple[Shown, ...] = (
    Shown("output_tokens_per_s", "Output", "tokens/s"),
    Shown(PER_GPU, "Output a GPU", "tokens/s", meaning="output tokens a second and GPU"),
    Shown("requests_per_s", "Served", "requests/s"),
    Shown("goodput_requests_per_s", "Goodput", "requests/s", zeros=True),
    Shown("good_share", "Good", "% of requests", 100.0, zeros=True),
    Shown("mean_batch", "Mean batch", "requests"),
    Shown("token_share", "Live KV", "% of pool", 100.0),
    Shown("saturated_token_share", "Live KV, sat.", "% of pool", 100.0),
    Shown("ttft_p50_s", "TTFT p50", "s"),
    Shown("ttft_p99_s", "TTFT p99", "s"),
    Shown("tpot_mean_s", "TPOT", "ms", 1000.0),
    Shown("itl_p99_s", "ITL p99", "ms", 1000.0),
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
