"""Engine and sampling options, as Hydra knows them."""

from __future__ import annotations

from dataclasses import dataclass

POLICIES = ("continuous", "static", "orca", "chunked")
PREEMPTIONS = ("recompute", "swap")
COMPILED = ("auto", "on", "off")
SAMPLING_MODES = ("greedy", "parallel", "beam", "speculative")


@dataclass
class EngineSpec:
    """How requests are batched.

    `max_len` is the longest sequence in tokens, prompt and output (null: the model's context).
    `max_num_seqs` counts sequences, so a beam of width 4 counts four.  A step computes at most
    `max_num_batched_tokens` prompt tokens (null: the larger of max_len and 2048), unless one prompt
    alone is longer; a `static` batch is not filled up later, and Orca bounds a batch by requests
    alone, so for `static` and `orca` null sets no bound; with the policy `chunked` these are all
    tokens of a step, without exception (null: 2048, as vLLM).  `skip_ahead` lets the engine run
    steps in which nothing but growth happens in one go; it changes no result, and nor does
    `compiled`: `auto` runs a compiled loop where that is possible and saves more time than it
    costs, `on` always, `off` never.

    `preemption` says what happens to whoever must make room: `recompute` forgets its KV, `swap`
    moves it to host memory of `host_gib` (null: as much as the pool), and recomputes once that is
    full.  `expected_output_tokens`: beside others a request is let in only if that much output
    would fit as well (0: only what it takes at once); fewer preemptions for a smaller batch.  The
    `chunked` policy, which has a rule of its own, refuses it.
    """

    policy: str = "continuous"
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    max_len: int | None = None
    skip_ahead: bool = True
    compiled: str = "auto"
    preemption: str = "recompute"
    host_gib: float | None = None
    expected_output_tokens: int = 0


@dataclass
class SamplingSpec:
    """How a request becomes sequences.

    `greedy`: one.  `parallel`: `n` samples of one prompt, which a real model draws with
    `temperature` from the likeliest tokens that together hold `top_p`.  `beam`: `width`
    candidates, of a real model the likeliest; where it is simulated, at each step a candidate is,
    with probability `beam_switch`, replaced by a continuation of a candidate drawn at random
    (itself included), which is how simulated beams coalesce.  `speculative`: one,
    with `draft_tokens` guesses a step, each accepted with probability `acceptance_rate` until the
    first that is not; one step of the draft model takes `draft_cost` of a decode step.
    """

    mode: str = "greedy"
    n: int = 4
    width: int = 4
    beam_switch: float = 0.07
    draft_tokens: int = 4
    acceptance_rate: float = 0.7
    draft_cost: float = 0.05
    temperature: float = 1.0
    top_p: float = 1.0

    @property
    def sequences(self) -> int:
        return {"parallel": self.n, "beam": self.width}.get(self.mode, 1)
