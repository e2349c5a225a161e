"""The `continuous` policy: as soon as a waiting request fits, a step computes prompts.

Otherwise all that run decode.  So did vLLM at first (PagedAttention, SOSP 2023); like Orca it asks
the queue before every step, but Orca computes prompts beside decodes: see the `orca` policy.
"""

from __future__ import annotations

from harness.engine.schedulers.base import DEFAULT_BUDGET_TOKENS
from harness.engine.schedulers.whole_prompts import WholePromptScheduler


class ContinuousScheduler(WholePromptScheduler):
    """Asks the queue before every step."""

    @staticmethod
    def default_budget_tokens(max_len: int) -> int:
        return max(max_len, DEFAULT_BUDGET_TOKENS)

    def _admits(self) -> bool:
        return True
