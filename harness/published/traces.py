"""Hit rates of public traces."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import ConfigError
from harness.hitcurve.curve import compute
from harness.hitcurve.options import parse
from harness.hitcurve.trace import block_trace
from harness.published.experiment import Runs
from harness.published.tasks import Found
from workloads.errors import WorkloadError
from workloads.formats import read


@dataclass(frozen=True)
class HitRates:
    """What `python -m harness.hitcurve` finds with these options: shares by capacity."""

    options: tuple[str, ...]

    def run(self) -> Found:
        options = parse(self.options)
        try:
            requests = read(str(options.workload.path), options.workload.format)
        except WorkloadError as error:
            raise ConfigError(str(error)) from error
        trace = block_trace(requests, options.block_tokens)
        points = compute(trace, options)
        return {"lru": {str(point.capacity_blocks): point.hit_rate for point in points}}


def mooncake(runs: Runs) -> dict[str, float]:
    """Return the blocks that hit, percent, by capacity."""
    rates = runs.found("trace")["lru"]
    return {
        f"{'unbounded' if size == 'None' else f'{int(size):,}'} blocks of 512 tokens": 100 * rate
        for size, rate in rates.items()
    }
