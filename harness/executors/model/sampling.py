"""How tokens are chosen from logits; each choice depends on its own request alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from allocators.base import IntArray
from harness.engine.config import SamplingSpec
from harness.engine.group import Group

#: separates these draws from others made with the same seed
STREAM = 0x5A3C


@dataclass(frozen=True, slots=True)
class Choice:
    """What a group goes on with: a token for each sequence; for beams also the one it continues."""

    tokens: IntArray  # [sequences]
    parents: IntArray | None = None


class Sampler:
    """Greedy, temperature with top-p (nucleus), and beam search, as `sampling.mode` says.

    Nothing depends on which other groups are in the batch, so every allocator gets the same
    tokens from the same logits.
    """

    def __init__(self, spec: SamplingSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        #: of each request's beams, the best first: sums of log-probabilities, [width]
        self.beam_scores: dict[int, torch.Tensor] = {}
        self._draws: dict[int, np.ndarray] = {}

    def choose(
        self, logits: torch.Tensor, rows: list[slice], groups: list[Group], emitted: list[int]
    ) -> list[Choice]:
        """Choose the next tokens of each group.

        logits: float32 [N, vocab]; `rows[i]` are those of group i: one a sequence, or a single one
        where all go on from the same prompt.  emitted: how many tokens each group has already.
        Raises `ArithmeticError` for logits that are infinite or no numbers.
        """
        if not torch.isfinite(logits).all():
            raise ArithmeticError("the logits are not finite: the weights overflow in this dtype")
        if self._spec.mode == "beam":
            return self._beams(logits, rows, groups, emitted)
        if self._spec.mode == "parallel":
            return self._samples(logits, rows, groups, emitted)
        tokens = logits.argmax(dim=-1).cpu().numpy()
        return [Choice(tokens[at]) for at in rows]

    # -- temperature and top-p (Holtzman et al., arXiv 1904.09751) -----------------------------
    def _samples(
        self, logits: torch.Tensor, rows: list[slice], groups: list[Group], emitted: list[int]
    ) -> list[Choice]:
        both = zip(rows, groups, strict=True)
        wide = torch.cat([_spread(logits[at], group.sequences) for at, group in both])
        draws = np.concatenate([self._draw(g)[n] for g, n in zip(groups, emitted, strict=True)])
        tokens = nucleus(wide, self._spec.temperature, self._spec.top_p, draws)
        ends = np.cumsum([g.sequences for g in groups])
        return [Choice(part) for part in np.split(tokens, ends[:-1])]

    def _draw(self, group: Group) -> np.ndarray:
        """Return the uniform numbers of a group, [output_tokens, sequences]."""
        if group.index not in self._draws:
            key = [(self._seed & (2**64 - 1)) ^ STREAM, group.index]
            rng = np.random.Generator(np.random.Philox(key=key))
            self._draws[group.index] = rng.random((group.output_tokens, group.sequences))
        return self._draws[group.index]

    # -- beam search ---------------------------------------------------------------------------
    def _beams(
        self, logits: torch.Tensor, rows: list[slice], groups: list[Group], emitted: list[int]
    ) -> list[Choice]:
        width, vocab = self._spec.width, logits.shape[-1]
        found = torch.log_softmax(logits, dim=-1)
        wide = torch.stack([_spread(found[at], width) for at in rows])
        start = torch.full((width,), -torch.inf, device=logits.device)
        start[0] = 0.0  # all beams are the prompt: only the first one is continued
        scores = torch.stack(
            [
                self.beam_scores[g.index] if n else start
                for g, n in zip(groups, emitted, strict=True)
            ]
        )
        total = (scores[:, :, None] + wide).flatten(1)
        best = torch.topk(total, width, dim=-1, sorted=True)
        parents, tokens = (
            (best.indices // vocab).cpu().numpy(),
            (best.indices % vocab).cpu().numpy(),
        )
        choices = []
        for i, group in enumerate(groups):
            self.beam_scores[group.index] = best.values[i]
            # At first all hold the same prompt: going on in place moves nothing.
            at = parents[i] if emitted[i] else np.arange(width)
            choices.append(Choice(tokens[i], at))
        return choices


def nucleus(logits: torch.Tensor, temperature: float, top_p: float, draws: np.ndarray) -> IntArray:
    """Draw a token for each row by inversion, from the fewest likeliest tokens that hold `top_p`.

    logits: [N, vocab]; draws: uniform in [0, 1), [N].  temperature 0 takes the likeliest.
    """
    if temperature == 0.0:
        return logits.argmax(dim=-1).cpu().numpy()
    # The likeliest at 0 before the division: no temperature is so small that it overflows.
    wide = logits.double()
    wide = (wide - wide.amax(dim=-1, keepdim=True)) / temperature
    shares, order = torch.softmax(wide, dim=-1).sort(dim=-1, descending=True, stable=True)
    mass = shares.cumsum(dim=-1)
    # Kept is what the tokens before do not reach: at least one.
    kept = (mass - shares < top_p).sum(dim=-1, keepdim=True)
    total = mass.gather(-1, kept - 1)
    wanted = torch.as_tensor(draws, device=logits.device)[:, None] * total
    at = torch.searchsorted(mass, wanted, right=True).minimum(kept - 1)
    return order.gather(-1, at)[:, 0].cpu().numpy()


def _spread(rows: torch.Tensor, n: int) -> torch.Tensor:
    return rows.expand(n, -1) if len(rows) == 1 else rows
