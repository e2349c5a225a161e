"""What a family's rules are asked and answer, as Numba can take it: numbers, and tuples of them."""

from __future__ import annotations

from typing import NamedTuple

#: of an admission; growth answers REFUSED or the slots that memory has to copy, 0 for none
NEVER_FITS, REFUSED, GRANTED = -2, -1, 0


class Ask(NamedTuple):
    """An admission of one sequence: `Prompt` and `Demand` without identities and forks."""

    tokens: int
    whole_tokens: int
    prompt_tokens: int
    output_tokens: int
    request: int  # its number, in order of arrival
    hit_tokens: int  # that `lookup` has just found


class StepMaps(NamedTuple):
    """The page-groups that `begin_step` maps and unmaps, before the step and beside it."""

    before_maps: int
    before_unmaps: int
    beside_maps: int
    beside_unmaps: int


NO_MAPS = StepMaps(0, 0, 0, 0)


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
