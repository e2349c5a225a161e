"""What a family's rules are asked and answer, as Numba can take it: numbers, and tuples of them."""

from __future__ import annotations

from typing import NamedTuple

from allocators.base import Demand, IntArray, Prompt

#: of an admission, a fork or growth
NEVER_FITS, REFUSED, GRANTED = -2, -1, 0


class Ask(NamedTuple):
    """An admission or a fork: `Prompt` and `Demand` without identities."""

    tokens: int
    whole_tokens: int
    prompt_tokens: int
    output_tokens: int
    private_tokens: int
    sequences: int
    request: int  # its number, in order of arrival
    hit_tokens: int  # that `lookup` has just found


def ask_of(prompt: Prompt, demand: Demand) -> Ask:
    """Return what an admission asks for, but for what is found in a prefix index."""
    return Ask(
        prompt.tokens,
        prompt.whole_tokens,
        demand.prompt_tokens,
        demand.output_tokens,
        demand.private_tokens,
        demand.sequences,
        request=0,
        hit_tokens=0,
    )


class Answer(NamedTuple):
    """Whether memory agrees, and a `Grant` in numbers: slots to copy, page-groups to (un)map."""

    verdict: int
    copied: int
    maps: int
    unmaps: int


AGREED, REFUSAL, NEVER = (
    Answer(GRANTED, 0, 0, 0),
    Answer(REFUSED, 0, 0, 0),
    Answer(NEVER_FITS, 0, 0, 0),
)


class StepMaps(NamedTuple):
    """The page-groups that `begin_step` maps and unmaps, before the step and beside it."""

    before_maps: int
    before_unmaps: int
    beside_maps: int
    beside_unmaps: int


NO_MAPS = StepMaps(0, 0, 0, 0)


class Ended(NamedTuple):
    """Sequences of a static batch that have ended and still hold memory.

    `rows` of them, and the pages that hold at least one slot of theirs.
    """

    rows: IntArray
    pages: int


class Account(NamedTuple):
    """A `Usage` of one step, field by field."""

    token: int
    reserved: int
    internal: int
    round_up: int
    cached: int
    free: int
    pages: int
    logical_pages: int
    metadata_bytes: int
