"""What software adds to the hardware's time: the serving stack around the kernels.

A step keeps the CPU busy (scheduling, preparing inputs, launching, sampling, detokenising) for

    cpu = step + workers + rows x sequence + tokens x token + pieces x prefill + sampled x sampling
          + table entries x entry

and the GPU for what the roofline says of the stack's kernels.  Without `overlapped` the step takes
gpu + cpu.  With it (asynchronous scheduling) the CPU prepares one step while the GPU computes the
one before, so that in steady state a step takes max(gpu, cpu).  Both amounts are taken of the very
step, and the first step after an idle time is priced like any other: a step's time does not depend
on its neighbours, which is why several steps can be priced at once with the same bits.  A step is
planned when the one before it starts, so a request that comes while a step runs is at best in the
step after the next.

Around the steps a request spends `request_us` before the scheduler sees it (HTTP, tokenising), and
each of its tokens `response_us` before the client sees it.  Both are delays, not work: requests do
not queue for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from allocators.base import BLOCK_TABLE_ENTRY_BYTES
from harness.command.ranges import Positive, Range, Real, out_of_range
from harness.cost.shapes import CostError

#: ten seconds, in us: beyond any step or request, and far from where arithmetic overflows
MOST_US = 1e7
COST, SLOWDOWN = Real(0.0, MOST_US), Positive(1000.0)


@dataclass
class SoftwareSpec:
    """The constants of a serving stack; times in us.  `conf/software/` has a file for each.

    The defaults are those of `nominal`: what a step cost before there were profiles.
    """

    name: str = "nominal"
    # -- CPU time of a step ---------------------------------------------------------------------
    step_us: float = 1000.0  # a step
    workers_us: float = 0.0  # a step on several GPUs, of which each has a worker that is told of it
    sequence_us: float = 0.0  # a running sequence: one that decodes, or a piece of a prompt
    token_us: float = 0.0  # a token computed
    prefill_us: float = 0.0  # a prompt, or a piece of one
    sampling_us: float = 5.0  # a sequence that samples a token
    #: an entry of the block tables, where the host writes them anew each step: 11 x 128 entries in
    #: 82 us (vLLM pull request 4196, April 2024); 0 for one that keeps them, as vLLM's V1
    table_entry_ns: float = 58.0
    #: the CPU prepares a step while the GPU computes the one before
    overlapped: bool = False
    # -- the stack's kernels, times the roofline's; 1 is level, below 1 is faster -----------------
    weight_read_slowdown: float = 1.0  # matrix products, of their time to read the weights
    small_kernel_slowdown: float = 1.0  # norms, adds, rotary, activation: of their least time
    all_reduce_slowdown: float = 1.0  # of its latency
    paged_decode_slowdown: float = 1.0  # attention that reads block tables, against contiguous
    paged_prefill_slowdown: float = 1.0
    # -- around the steps -----------------------------------------------------------------------
    request_us: float = 0.0  # a request, before the scheduler sees it
    response_us: float = 0.0  # a token, from the sampler to the client


#: what a step is made of, and what a calibration has measured already
STEP_CONSTANTS = (
    "step_us", "workers_us", "sequence_us", "token_us", "prefill_us", "sampling_us",
    "table_entry_ns", "overlapped", "weight_read_slowdown", "small_kernel_slowdown",
    "all_reduce_slowdown", "paged_decode_slowdown", "paged_prefill_slowdown",
)  # fmt: skip
RANGES: Mapping[str, Range] = {
    "step_us": COST,
    "workers_us": COST,
    "sequence_us": COST,
    "token_us": COST,
    "prefill_us": COST,
    "sampling_us": COST,
    "table_entry_ns": COST,
    "request_us": COST,
    "response_us": COST,
    "weight_read_slowdown": SLOWDOWN,
    "small_kernel_slowdown": SLOWDOWN,
    "all_reduce_slowdown": SLOWDOWN,
    "paged_decode_slowdown": SLOWDOWN,
    "paged_prefill_slowdown": SLOWDOWN,
}


def check_software(software: SoftwareSpec) -> None:
    """Raise `CostError` for a constant that no software can have."""
    problem = out_of_range("software", software, RANGES)
    if problem is not None:
        raise CostError(problem)


def ideal() -> SoftwareSpec:
    """Return software that takes no time at all."""
    return SoftwareSpec("ideal", step_us=0.0, sampling_us=0.0, table_entry_ns=0.0)


def check_beside_calibration(software: SoftwareSpec) -> None:
    """Raise `CostError` for a step's constants beside measured steps, which hold them already.

    `nominal` and `ideal` are taken as not given.
    """
    for standing in (SoftwareSpec(), ideal()):
        if all(getattr(software, name) == getattr(standing, name) for name in STEP_CONSTANTS):
            return
    plain = SoftwareSpec()
    name = next(n for n in STEP_CONSTANTS if getattr(software, n) != getattr(plain, n))
    raise CostError(
        f"software.{name}={getattr(software, name)} would count twice: a calibration's steps were "
        "measured with their software; with cost_model=calibrated take software=ideal, of which "
        "software.request_us and software.response_us may be set"
    )


class Software:
    """A profile's constants that follow from others, in seconds."""

    def __init__(self, spec: SoftwareSpec, ranks: int) -> None:
        """`ranks` are the server's GPUs.  Raise `CostError` for a constant that makes no sense."""
        check_software(spec)
        self.spec = spec
        self.step_s = (spec.step_us + (spec.workers_us if ranks > 1 else 0.0)) * 1e-6
        self.written_byte_s = spec.table_entry_ns * 1e-9 / BLOCK_TABLE_ENTRY_BYTES

    @property
    def table_byte_s(self) -> float:
        """How long the GPU waits for the host to write a byte of the block tables."""
        return 0.0 if self.spec.overlapped else self.written_byte_s
