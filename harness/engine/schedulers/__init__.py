"""Who runs the next step, and what memory must do for it: a file for each policy.

Scheduler                  queue, rows, preemption, release
|-- WholePromptScheduler   a prompt in one step
|   |-- ContinuousScheduler    apart from decodes
|   |   |-- SpeculativeScheduler
|   |   `-- OrcaScheduler      beside decodes
|   `-- StaticScheduler        apart from decodes
`-- ChunkedScheduler       prompts in pieces, beside decodes
"""

from __future__ import annotations

from harness.engine.schedulers.base import Scheduler
from harness.engine.schedulers.chunked import ChunkedScheduler
from harness.engine.schedulers.continuous import ContinuousScheduler
from harness.engine.schedulers.orca import OrcaScheduler
from harness.engine.schedulers.speculative import SpeculativeScheduler
from harness.engine.schedulers.static import StaticScheduler
from harness.engine.setup import Setup

SCHEDULERS: dict[str, type[Scheduler]] = {
    "continuous": ContinuousScheduler,
    "static": StaticScheduler,
    "orca": OrcaScheduler,
    "chunked": ChunkedScheduler,
}


def make_scheduler(setup: Setup) -> Scheduler:
    """Return the scheduler of a run; raise `Unsupported` for what its policy cannot serve."""
    policy = SCHEDULERS[setup.options.policy]
    policy.check(setup)
    if setup.sampling.mode == "speculative":
        policy = SpeculativeScheduler
        policy.check(setup)
    return policy(setup)
