"""The identities of the tokens a request will have, for allocators that look prompts up."""

from __future__ import annotations

import numpy as np

from allocators.base import IntArray
from harness.engine.group import Group
from workloads.requests import RequestTable, unique_ids


class Streams:
    """Makes a request's stream when it is first asked for and keeps it until the request ends.

    Simulated output is nobody else's, so only the request itself can hit it, after a preemption.
    Of a group of several sequences only the prompt has identities: they differ behind it.
    """

    def __init__(self, requests: RequestTable, wanted: bool) -> None:
        self._requests = requests
        self._wanted = wanted
        self._kept: dict[int, IntArray] = {}

    def of(self, group: Group) -> IntArray | None:
        """Return the identities of prompt and output, int64; None if the allocator has no use."""
        if not self._wanted:
            return None
        if group.index not in self._kept:
            self._kept[group.index] = self._make(group)
        return self._kept[group.index]

    def forget(self, group: Group) -> None:
        self._kept.pop(group.index, None)

    def _make(self, group: Group) -> IntArray:
        known = self._requests.prompt_ids(group.index)
        if known is None:
            known = unique_ids(group.index, 0, group.prompt_tokens)
        if group.sequences > 1:
            return known
        end = group.prompt_tokens + group.output_tokens
        return np.concatenate([known, unique_ids(group.index, group.prompt_tokens, end)])
