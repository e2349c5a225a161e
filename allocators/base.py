"""The protocol every KV-cache allocator obeys, and the values that cross it.

An allocator *decides* and never *acts*: each method is pure, deterministic bookkeeping that answers
with a `Grant`, the list of what must now happen to memory, or with `None` when the request does not
fit at present.  A backing executes grants on real memory; a cost model prices them on a simulated
clock.  A simulated and a real run therefore take the same decisions by construction.

A live sequence is named by its *row*, an integer `0 <= row < geometry.max_seqs` that the caller
chooses and may use again after `release`.  Lengths and addresses are counted in *slots*: one slot
holds the keys and values of one token in every layer.  A *group* is the sequences of one request.

A *step* is what the caller plans with any number of calls, ends by `begin_step` and then computes;
what was granted is to be written only after `begin_step`.  So a policy may promise memory while a
step is planned, and say in one go what that takes.

Invariants (each is checked by `harness.conformance`):

1. Atomic: a refusal (`None`) changes no state and no address.
2. Conservation: active + cached + free == capacity, always.
3. Addressing: each (sequence, position < length) has exactly one physical slot; two sequences share
   one only through `admit` of a group, `fork`, `reassign` or a prefix hit.
4. Single writer: the slot about to be written belongs to one sequence; copy-on-write comes first.
5. Honest hit: a prefix hit of n tokens means those n slots hold exactly those tokens, and the last
   prompt token is never a hit.
6. Total release: once all are released nothing is active, and nothing stays held beyond what
   the policy declares as cached.
7. Deterministic: the same calls give the same grants.  No clock, no unseeded randomness.
8. Causal: what a background thread does while a step computes serves later steps only.  Nothing it
   maps is used, and nothing it unmaps is still needed or used again, before that step is over.
"""

from __future__ import annotations

import abc
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from allocators.geometry import Geometry
from allocators.layers import IntArray
from allocators.layouts import BlockTable as BlockTable
from allocators.layouts import Layout as Layout
from allocators.layouts import Strided as Strided


class AllocatorError(Exception):
    """Base of every error an allocator raises on purpose; its text is one line for a person."""


class NeverFits(AllocatorError):
    """The request cannot fit even into an empty pool."""


class Unsupported(AllocatorError):
    """The policy cannot do this at all (for instance a page size the model's shape rules out)."""


def one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise ValueError unless a knob's value is one of those allowed."""
    if value not in tuple(allowed):  # a YAML may hold what no dict can look up
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def is_number(value: object) -> bool:
    """Say whether a knob's value is a number at all; a bool is a mistake, not a 0 or a 1."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a sequence starts from: `tokens` slots, and the identities of its tokens if known.

    `token_ids` may go on beyond `tokens`: for a single sequence they then tell what its later
    slots will hold, so that blocks it fills as it grows can be shared too.  A policy may keep the
    array; it must not be changed afterwards.

    `whole_tokens`, if above `tokens`, is the length that must fit into memory at present for the
    request to be admitted, though only `tokens` slots are taken (a prompt computed in chunks).
    """

    tokens: int
    token_ids: IntArray | None = None
    whole_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """How much a sequence says, and truly, will need.

    `prompt_tokens` and `output_tokens` are the request's own, also when it is admitted again after
    a preemption with part of its output already in the prompt.  Only the `oracle` and `pow2`
    reservations may read `output_tokens`; they are idealised baselines (PagedAttention, section
    6.1).  `private_tokens` are slots that each sequence of a group takes at once beyond the
    common prompt: the diverged part that a preempted group recomputes.

    `sequences`, if more than are admitted, says that they will become so many by `fork` at the end
    of the prompt.  Only what is admitted is taken, but it is let in only if the whole group
    would fit at present: each sequence `Prompt.whole_tokens` long, the prompt shared as `fork`
    shares it.
    """

    prompt_tokens: int
    output_tokens: int
    private_tokens: int = 0
    sequences: int = 1


def _none(columns: int) -> IntArray:
    array = np.empty((0, columns), dtype=np.int64)
    array.setflags(write=False)
    return array


NO_COPIES, NO_MAPS, NO_SWAPS = _none(3), _none(3), _none(3)


@dataclass(frozen=True, slots=True)
class Grant:
    """What must happen to memory: swaps out, unmaps, conversions, maps, swaps in, copies.

    `copies` rows are (source slot, destination slot, slots), physical; within one grant all
    sources are read before any destination is written.  Copies granted by `admit` read the
    prompt's KV and are executed once that is computed; all others come before the step computes.
    `maps` and `unmaps` rows are (virtual range, page-group of it, physical page-group), `swaps_out`
    and `swaps_in` rows (device slot, host slot, slots); with layer groups all five have a fourth
    number, the layer group's index.  `converted` rows are (chunk, bytes of its pages, new bytes).
    """

    cached_tokens: int = 0
    copies: IntArray = field(default_factory=lambda: NO_COPIES)
    maps: IntArray = field(default_factory=lambda: NO_MAPS)
    unmaps: IntArray = field(default_factory=lambda: NO_MAPS)
    swaps_out: IntArray = field(default_factory=lambda: NO_SWAPS)
    swaps_in: IntArray = field(default_factory=lambda: NO_SWAPS)
    converted: IntArray = field(default_factory=lambda: NO_MAPS)

    @property
    def is_empty(self) -> bool:
        """Whether it asks nothing of memory."""
        tables = (self.copies, self.maps, self.unmaps, self.swaps_out, self.swaps_in)
        return not any(map(len, (*tables, self.converted)))


EMPTY_GRANT = Grant()


class StepGrants(NamedTuple):
    """What a step takes beyond the grants of its calls; both only unmap, convert and map.

    `before` comes behind those grants and blocks the step; `beside` is done by a background thread
    while the step computes.
    """

    before: Grant
    beside: Grant


NO_STEP_GRANTS = StepGrants(EMPTY_GRANT, EMPTY_GRANT)


#: bytes of one block-table entry on the device (a 32-bit block number)
BLOCK_TABLE_ENTRY_BYTES = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """Where the pool's bytes are, one entry a step; the first six and `expired` sum to it all.

    `round_up` is what a buddy allocator adds to a reservation (reported as external, as the
    PagedAttention paper counts it).  `pages` counts what is held, `logical_pages` what would be
    held if nothing were shared; `metadata_bytes` (tables) lies outside the pool.  `expired` slots
    hold what no token of this step or a later one reads; none (None) in a uniform model.
    """

    token: IntArray
    reserved: IntArray
    internal: IntArray
    round_up: IntArray
    cached: IntArray
    free: IntArray
    pages: IntArray
    logical_pages: IntArray
    metadata_bytes: IntArray
    expired: IntArray | None = None

    def __post_init__(self) -> None:
        if self.expired is None:
            object.__setattr__(self, "expired", np.zeros_like(self.token))


class Allocator(abc.ABC):
    """One KV-cache memory policy.  See the module docstring for the invariants.

    Every policy file keeps the same sections in the same order: construction, admission, growth,
    sharing, release, views, checks.
    """

    #: driver calls that map one page-group on one rank (0: the policy never maps)
    pages_per_group: int = 0
    #: bytes of one driver page, of several sizes the smallest (0: the policy never maps)
    page_bytes: int = 0
    #: whether a page-group that is mapped may stand in several virtual ranges at once; memory that
    #: cannot show it twice, or whose tokens run over page ends, has to know
    alias: bool = True
    #: whether the kernels read a block table, which is sent to the device at every step
    block_tables: ClassVar[bool] = False
    #: whether prompts are looked up in a prefix index, which has to be told their tokens
    has_prefix_index: bool = False
    #: pages whose cached prefix was given up for another use, so far
    evictions: int = 0

    @classmethod
    def of(cls, geometry: Geometry, **knobs: Any) -> Allocator:
        """Return this policy for a pool; one that knows layer groups may be another class.

        Raises `Unsupported` where it knows no layer groups, ValueError or TypeError for a knob.
        """
        if geometry.layer_groups:
            raise Unsupported(f"{cls.__name__} knows uniform models only, not layer groups")
        return cls(geometry, **knobs)

    def __init__(self, geometry: Geometry) -> None:
        if geometry.capacity_tokens < 1 or geometry.max_seqs < 1 or geometry.max_len < 1:
            raise ValueError(f"geometry needs capacity, max_seqs and max_len >= 1, got {geometry}")
        self.geometry = geometry
        #: page-groups of one virtual range, and slots from one range to the next
        self.range_pages = -(-geometry.max_len // geometry.page_tokens)
        self.range_tokens = self.range_pages * geometry.page_tokens
        self.length: IntArray = np.zeros(geometry.max_seqs, dtype=np.int64)
        self.active = np.zeros(geometry.max_seqs, dtype=bool)

    # -- admission ---------------------------------------------------------------------------
    @abc.abstractmethod
    def admit(self, rows: IntArray, prompt: Prompt, demand: Demand) -> Grant | None:
        """Start a group: `rows[0]` holds the prompt, the others continue from it; all or nothing.

        Afterwards each sequence is `prompt.tokens + demand.private_tokens` long.  The prompt's KV
        is written where `rows[0]` then has it, the grant's copies follow, the private tokens
        come last.  Raises `NeverFits` if an empty pool could not hold it.
        """

    def lookup(self, prompt: Prompt) -> int:
        """Return how many of its first tokens `admit` would now find cached, without effects.

        Never the whole prompt.  A scheduler that admits a prompt piece by piece asks it, to know
        how far the first piece reaches.
        """
        return 0

    # -- growth ------------------------------------------------------------------------------
    @abc.abstractmethod
    def grow(self, rows: IntArray, n: int = 1) -> Grant | None:
        """Give each sequence its next `n` slots, all or nothing."""

    def leading(self, rows: IntArray) -> int | None:
        """Return how many of `rows`, from the first on, `grow` would give a slot in one call.

        Asked where it has refused them all together.  None: `grow` is asked for fewer and fewer.
        """
        return None

    @abc.abstractmethod
    def headroom(self, rows: IntArray) -> int:
        """Return the largest n that `grow(rows, n)` would grant (0 if not even one)."""

    @abc.abstractmethod
    def quiet_steps(self, rows: IntArray, at_most: int) -> int:
        """Return the largest n <= at_most such that `grow(rows, n)` needs no operation on memory.

        Nor does the `begin_step` of any of these steps, the one that is being planned included.
        The engine skips over that many steps at once; 0 is always a correct answer.
        """

    def lone_steps(self, rows: IntArray, at_most: int) -> int:
        """Return the same where nobody waits for memory, so that some may be given back meanwhile.

        These steps are taken by `take_steps`.
        """
        return self.quiet_steps(rows, at_most)

    def take_steps(self, rows: IntArray, n: int) -> Grant | None:
        """Grow by a slot in each of `n` steps, which `quiet_steps` or `lone_steps` has allowed."""
        return self.grow(rows, n)

    def truncate(self, row: int, n: int) -> Grant:
        """Drop the last `n` slots (speculative roll-back)."""
        raise Unsupported(f"{type(self).__name__} does not support truncate")

    # -- a step ------------------------------------------------------------------------------
    def begin_step(self) -> StepGrants:
        """End the planning of a step: say what is to be done before it computes, and beside it.

        Called once a step, behind its last other call, whoever takes part in it.
        """
        return NO_STEP_GRANTS

    # -- sharing -----------------------------------------------------------------------------
    @abc.abstractmethod
    def fork(self, parent: int, children: IntArray, demand: Demand) -> Grant | None:
        """Start `children` as continuations of what `parent` holds now.

        A policy that reserves makes room in each for `demand.private_tokens` behind that.
        """

    @abc.abstractmethod
    def reassign(self, rows: IntArray, parents: IntArray) -> Grant | None:
        """Beam step: sequence rows[i] continues from parents[i]; parents are drawn from rows.

        A row and its parent are equally long.
        """

    # -- release -----------------------------------------------------------------------------
    @abc.abstractmethod
    def release(self, rows: IntArray) -> Grant:
        """End these sequences and take their memory back."""

    def preempt(self, rows: IntArray) -> Grant:
        """Take the memory of sequences that will be back, while a step is planned without them."""
        return self.release(rows)

    def suspend(self, rows: IntArray, ticket: int) -> Grant | None:
        """Move these sequences to host memory and take theirs back; None if the host is full.

        `ticket` is the caller's name for what is saved, to `resume` it.
        """
        raise Unsupported(f"{type(self).__name__} cannot swap")

    def resume(self, rows: IntArray, ticket: int) -> Grant | None:
        """Bring a ticket's sequences back, now in `rows`; None if they do not fit at present.

        Beside others they are let in only if each could also grow by one slot.
        """
        raise Unsupported(f"{type(self).__name__} cannot swap")

    # -- views -------------------------------------------------------------------------------
    @abc.abstractmethod
    def layout(self, rows: IntArray) -> Layout:
        """Return what a kernel needs to find the KV of these sequences."""

    @abc.abstractmethod
    def addresses(self, row: int) -> IntArray:
        """Return the physical slot of each position, [length]; for tests and memory maps."""

    def extents(self, row: int) -> IntArray:
        """Return the stretches of the pool that it holds, written or not; for memory maps.

        [stretches, 2] of (first slot, slots).  A policy that does not say holds what is written.
        """
        slots = self.addresses(row)
        return np.column_stack([slots, np.ones_like(slots)])

    @abc.abstractmethod
    def usage(self, rows: IntArray, finals: IntArray, steps: int = 1) -> Usage:
        """Account for the pool over the last `steps` steps, the present one last.

        `rows` are the live sequences and `finals` the lengths at which they will end (the caller
        knows the truth, the policy does not).  With `steps` > 1 they have just grown by at least
        that many slots at once, without any operation on memory.
        """

    def table_entries(self, longest: int | IntArray) -> int | IntArray:
        """Return the table entries sent for a row as long as the longest, a number or [steps]."""
        return -(-longest // self.geometry.page_tokens) if self.block_tables else 0

    def driver_calls(self, page_groups: IntArray) -> dict[int, int]:
        """Return how many pages of each size, in bytes, these rows of a grant map on a rank."""
        return {self.page_bytes: len(page_groups) * self.pages_per_group}

    def arrays(self) -> Any:
        """Return the arrays that `allocators.rules` work on, for a compiled loop.

        Asked of one that holds nothing.  The policy shares them, but for what a prefix index knows
        and which pages it evicts next.  None: its rules are its methods alone, which the engine
        then calls step by step.
        """
        return None

    # -- checks ------------------------------------------------------------------------------
    @abc.abstractmethod
    def balance(self) -> tuple[int, int, int]:
        """Return (active, cached, free) in the policy's own units; they sum to its capacity."""

    @abc.abstractmethod
    def check(self) -> None:
        """Assert every invariant of the internal state; O(state)."""
