"""How much room there is, and how much an admission asks for; for allocators of pages."""

from __future__ import annotations

from collections.abc import Callable

from allocators.base import Demand, Prompt


def bisect_headroom(fits: Callable[[int], bool], at_most: int) -> int:
    """Return the largest n <= at_most for which `fits(n)`; `fits` never turns true again."""
    if at_most <= 0:
        return 0
    if fits(at_most):
        return at_most
    low, high = 0, at_most
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def pages_when_forked(
    prompt: Prompt, demand: Demand, sequences: int, page_tokens: int, shares: bool = True
) -> int:
    """Return the pages that `sequences` need at `prompt.whole_tokens`, those forked included.

    `shares`: a fork shares the full pages of the request's own prompt, and all of them as long as
    nothing follows it.  Without a fork to come it is those of one sequence.
    """
    whole = -(-max(prompt.tokens, prompt.whole_tokens) // page_tokens)
    if sequences >= demand.sequences:
        return whole
    diverged = prompt.whole_tokens > demand.prompt_tokens
    shared = (demand.prompt_tokens // page_tokens if diverged else whole) if shares else 0
    return shared + demand.sequences * (whole - shared)
