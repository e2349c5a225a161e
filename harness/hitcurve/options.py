"""The options of the command, typed, and their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from allocators.prefix import EVICTIONS
from harness.command.arguments import parse_options
from harness.errors import ConfigError
from workloads.errors import WorkloadError, one_of, whole
from workloads.spec import ColumnSpec

ORDERS = ("touch", "deepest_first", "both")

USAGE = """\
usage: python -m harness.hitcurve workload.path=FILE [OPTION=VALUE ...]

The hit rate of a trace's prompts against the capacity of a prefix cache. A block is a hit if it
and all blocks before it in its prompt are in the cache; requests come one after the other and
nothing is pinned. LRU comes from one pass, the others are simulated.

  workload.path=FILE      a trace with hash_ids (Mooncake, Qwen Bailian, kv-cache-tester) or with
                          token ids, or a folder of kv-cache-tester documents
  workload.format=auto    the format, where it is not recognised
  workload.num_requests=N only the first N requests
  workload.columns.arrival=NAME  its time, and .prompt, .output (docs/workloads.md)
  capacities=[1000,...]   in blocks, by default 1, 2, 5, 10, 20 and 50 % of the trace's distinct
                          blocks; an unbounded cache is always added
  policies=[lru]          of lru, lfu, fifo, s3fifo
  block_tokens=N          tokens a block; the trace's own by default (16 for token ids)
  order=touch             in which a prompt's blocks are touched: touch (from its start),
                          deepest_first (from its end, so that its end is evicted first) or both
  out=DIR                 where hitcurve.csv, .json and .png go; results/runs/hitcurve-TIME
"""


@dataclass
class WorkloadOptions:
    path: str | None = None
    format: str = "auto"
    columns: ColumnSpec = field(default_factory=ColumnSpec)
    num_requests: int | None = None


@dataclass
class HitCurveOptions:
    workload: WorkloadOptions = field(default_factory=WorkloadOptions)
    capacities: list[int] | None = None
    policies: list[str] = field(default_factory=lambda: ["lru"])
    block_tokens: int | None = None
    order: str = "touch"
    out: str | None = None

    @property
    def orders(self) -> tuple[str, ...]:
        return ORDERS[:2] if self.order == "both" else (self.order,)


def parse(arguments: Sequence[str]) -> HitCurveOptions:
    """Return the options of a command line. Raises ConfigError of one line for any mistake."""
    return _checked(parse_options(arguments, HitCurveOptions))


def _checked(options: HitCurveOptions) -> HitCurveOptions:
    if not options.workload.path:
        raise ConfigError("workload.path=FILE is needed: a trace to read; --help lists the options")
    try:
        one_of("order", options.order, ORDERS)
        for policy in options.policies:
            one_of("policies", policy, EVICTIONS)
        for capacity in options.capacities or ():
            whole("capacities", capacity, at_least=1)
        if options.block_tokens is not None:
            whole("block_tokens", options.block_tokens, at_least=1)
        if options.workload.num_requests is not None:
            whole("workload.num_requests", options.workload.num_requests, at_least=1)
    except WorkloadError as error:
        raise ConfigError(str(error)) from None
    if not options.policies or options.capacities == []:
        empty = "capacities" if options.policies else "policies"
        raise ConfigError(f"{empty}=[] leaves nothing to compute")
    if options.capacities is not None:
        options.capacities = sorted(set(options.capacities))
    options.policies = list(dict.fromkeys(options.policies))
    return options
