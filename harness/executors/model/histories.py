"""The tokens of every request of a real run: what was asked, and what has been answered so far."""

from __future__ import annotations

import hashlib

import numpy as np

from allocators.base import IntArray
from harness.engine.group import Group
from workloads.requests import RequestTable, unique_ids

#: an odd number that spreads consecutive identities over a vocabulary (2^64 / golden ratio)
SPREAD = np.uint64(0x9E3779B97F4A7C15)


class Histories:
    """Prompts in tokens of a vocabulary, and output tokens as they are emitted.

    A prompt's identities (`workloads.requests`) become tokens so that equal identities are equal
    tokens: real token ids modulo the vocabulary, others spread over it.  An identity that stands
    for a token which an earlier request has generated becomes the token that it did generate, so a
    cached prefix holds exactly what a later prompt says.
    """

    def __init__(self, requests: RequestTable, vocab: int) -> None:
        self._requests, self._vocab = requests, vocab
        self._prompts: dict[int, IntArray] = {}
        self._outputs: dict[int, IntArray] = {}  # [sequences, output_tokens]
        self._emitted: dict[int, int] = {}

    # -- reading -----------------------------------------------------------------------------
    def prompt(self, request: int) -> IntArray:
        """Return the tokens of a prompt, [prompt_tokens]."""
        if request not in self._prompts:
            ids = self._requests.prompt_ids(request)
            if ids is None:
                ids = unique_ids(request, 0, int(self._requests.prompt_tokens[request]))
            self._prompts[request] = self._tokens(ids)
        return self._prompts[request]

    def emitted(self, request: int) -> int:
        """Return how many tokens each sequence of a request has."""
        return self._emitted.get(request, 0)

    def output(self, request: int) -> IntArray:
        """Return the tokens emitted so far, [sequences, emitted]; of beams, the best one first."""
        return self._outputs[request][:, : self._emitted[request]]

    def piece(self, group: Group, sequence: int, start: int, stop: int) -> IntArray:
        """Return the tokens at positions `start`..`stop` - 1 of one sequence of a group."""
        prompt = self.prompt(group.index)
        asked = len(prompt)
        if stop <= asked:
            return prompt[start:stop]
        assert stop <= asked + self._emitted[group.index], "a token that nobody sampled"
        generated = self._outputs[group.index][sequence]
        if start >= asked:
            return generated[start - asked : stop - asked]
        return np.concatenate([prompt[start:], generated[: stop - asked]])

    def digest(self) -> str:
        """Return a hash of every request's emitted tokens, in the order of the requests."""
        found = hashlib.sha256()
        for request in range(len(self._requests)):
            output = self.output(request) if request in self._outputs else np.empty((0, 0))
            found.update(np.array(output.shape, dtype="<i8").tobytes())
            found.update(output.astype("<i4").tobytes())
        return f"sha256:{found.hexdigest()}"

    # -- writing -----------------------------------------------------------------------------
    def append(self, group: Group, tokens: IntArray, parents: IntArray | None = None) -> None:
        """Append a token to each sequence, [sequences]; sequence i goes on from `parents[i]`'s."""
        if group.index not in self._outputs:
            shape = (group.sequences, group.output_tokens)
            self._outputs[group.index] = np.zeros(shape, dtype=np.int64)
            self._emitted[group.index] = 0
        held, at = self._outputs[group.index], self._emitted[group.index]
        if parents is not None:
            held[:, :at] = held[parents, :at]
        held[:, at] = tokens
        self._emitted[group.index] = at + 1

    # -- identities --------------------------------------------------------------------------
    def _tokens(self, ids: IntArray) -> IntArray:
        tokens = ids % self._vocab
        unique = np.flatnonzero(ids < 0)
        if not len(unique):
            return tokens
        number = -(ids[unique] + 1)
        spread = (number.astype(np.uint64) * SPREAD) >> np.uint64(33)
        tokens[unique] = (spread % np.uint64(self._vocab)).astype(np.int64)
        owner, position = number >> 32, number & 0xFFFFFFFF
        generated = position - self._requests.prompt_tokens[owner]
        for i in np.flatnonzero(generated >= 0).tolist():
            # History names the answer of the request before it, which has ended by now.
            assert int(owner[i]) in self._outputs, "a prompt goes on from an answer not yet given"
            tokens[unique[i]] = self._outputs[int(owner[i])][0, generated[i]]
        return tokens
