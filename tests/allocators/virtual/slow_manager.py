"""An obvious, slow model of vAttention's memory manager: counts in lists, and nothing else.

Follows `vattention/vattention.cu` and `utils.h` of microsoft/vattention, commit
ef3fff25dbe4e10f5897da8648718c53df6a20ea, rule by rule.  It knows neither pages nor addresses: a
page-group is one page in each virtual tensor, and all groups are alike.  The background thread is
run to its end inside `step_async`, so that a race with the next call cannot occur.
"""

from dataclasses import dataclass, field

HALF_PRECISION_BYTES = 2
DRIVER_PAGE_BYTES = 2 << 20
#: the background thread looks this many tokens ahead at most, one after the other
LOOK_AHEAD_TOKENS = 9
#: ... and beyond the next token only until it has asked for so many groups
ENOUGH_GROUPS = 2


class OutOfMemory(Exception):
    """A step needs more groups than are free after everything spare was taken back."""


@dataclass(frozen=True)
class Shape:
    """A model's cache and the virtual buffers made for it, as the manager is told of them."""

    layers: int
    kv_heads: int
    head_dim: int
    max_len: int
    slots: int
    page_bytes: int
    one_tensor_for_all_layers: bool = False

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in one of the virtual tensors."""
        layers = self.layers if self.one_tensor_for_all_layers else 1
        return layers * self.kv_heads * self.head_dim * HALF_PRECISION_BYTES

    @property
    def group_tokens(self) -> int:
        return self.page_bytes // self.token_bytes

    @property
    def group_pages(self) -> int:
        return 2 if self.one_tensor_for_all_layers else 2 * self.layers

    @property
    def most_groups(self) -> int:
        """Pages of one slot's stretch of a virtual tensor.

        Tokens lie densely in it, so this may be less than the groups that `max_len` tokens ask
        for: the manager counts those in whole tokens a page.
        """
        return -(-self.token_bytes * self.max_len // self.page_bytes)

    def groups(self, pool_bytes: int) -> int:
        """Groups of a pool; whole groups over all layers are reserved in both layouts."""
        pages = pool_bytes // self.page_bytes
        return (pages - pages % (2 * self.layers)) // self.group_pages

    def calls(self, maps: int, unmaps: int) -> dict[str, int]:
        """Driver calls for so many groups; the driver made for small pages maps at one go, and
        is never called to unmap."""
        one_by_one = self.page_bytes == DRIVER_PAGE_BYTES
        map_calls = maps * self.group_pages
        return {
            "map": map_calls,
            "access": map_calls if one_by_one else 0,
            "unmap": unmaps * self.group_pages if one_by_one else 0,
        }


@dataclass
class Work:
    """Groups mapped and unmapped by one of the two threads."""

    maps: int = 0
    unmaps: int = 0


@dataclass
class SlowManager:
    """All slots are idle and nothing is mapped at first; `free` is then the pool."""

    shape: Shape
    free: int
    deferred: bool = True
    lengths: list[int] = field(init=False)
    mapped: list[int] = field(init=False)
    #: `mapped` when the last step returned, before the background thread
    mapped_critical: list[int] = field(init=False)
    critical: Work = field(default_factory=Work)
    background: Work = field(default_factory=Work)

    def __post_init__(self) -> None:
        self.lengths = [0] * self.shape.slots
        self.mapped = [0] * self.shape.slots
        self.mapped_critical = [0] * self.shape.slots
        self._at_work = self.critical

    # -- what the engine asks ------------------------------------------------------------------
    def needed(self, tokens: int) -> int:
        """Groups that so many tokens ask for; not limited by the buffer's length."""
        return -(-tokens // self.shape.group_tokens)

    def available(self) -> int:
        """Free groups, and mapped ones beyond their slot's length (idle slots: all of them).

        A slot whose length asks for more than its buffer holds counts as short by the rest.
        """
        return self.free + sum(self.mapped) - sum(self.needed(n) for n in self.lengths)

    @property
    def cached(self) -> int:
        return sum(m for m, n in zip(self.mapped, self.lengths, strict=True) if not n)

    def start_counting(self) -> None:
        """Forget the work done so far."""
        self.critical, self.background = Work(), Work()
        self._at_work = self.critical

    # -- slots ---------------------------------------------------------------------------------
    def take_slot(self, tokens: int) -> int | None:
        """Let a slot: the first idle one, unless a later one suffices and holds less."""
        idle = [slot for slot, length in enumerate(self.lengths) if not length]
        if not idle:
            return None
        chosen, *others = idle
        for slot in others:
            if self.needed(tokens) <= self.mapped[slot] < self.mapped[chosen]:
                chosen = slot
        self.lengths[chosen] = tokens
        return chosen

    def leave_slot(self, slot: int) -> None:
        """End the slot's sequence; whatever is mapped stays so."""
        self.lengths[slot] = 0

    # -- one iteration -------------------------------------------------------------------------
    def step_sync(self, lengths: list[int], unmap_idle: bool = True) -> None:
        """Slot after slot: unmap an idle one if asked to, back any other up to its length.

        Slots further on still have their former length while memory is taken back for one.
        """
        self._at_work = self.critical
        for slot, tokens in enumerate(lengths):
            self.lengths[slot] = tokens
            if tokens:
                self._back(slot)
            elif unmap_idle:
                self._unmap_down_to(slot, 0)
        self.mapped_critical = list(self.mapped)

    def step_async(self, lengths: list[int]) -> None:
        """Back every length, then let the background thread prepare the next iteration."""
        self._at_work = self.critical
        self.lengths = list(lengths)
        for slot in range(self.shape.slots):
            self._back(slot)
        self.mapped_critical = list(self.mapped)
        self._at_work = self.background
        self._prepare_next()

    def _back(self, slot: int) -> None:
        missing = self.needed(self.lengths[slot]) - self.mapped[slot]
        if missing <= 0:
            return
        self._make_free(missing)
        if self.free < missing:
            raise OutOfMemory(f"slot {slot} needs {missing} groups, {self.free} are free")
        self._map(slot, missing)

    def _prepare_next(self) -> None:
        needed_next = sum(self._wanted(slot, 1) for slot in range(self.shape.slots))
        self._make_free(needed_next)
        if self.free < needed_next:
            return
        self._look_ahead()
        if not needed_next and not self.deferred:
            self._give_back_one()

    def _look_ahead(self) -> None:
        asked_for = 0
        for ahead in range(1, LOOK_AHEAD_TOKENS + 1):
            for slot in range(self.shape.slots):
                wanted = self._wanted(slot, ahead)
                asked_for += wanted  # also if it is not to be had
                if wanted <= self.free:
                    self._map(slot, wanted)
                if ahead > 1 and asked_for >= ENOUGH_GROUPS:
                    return

    def _wanted(self, slot: int, ahead: int) -> int:
        if not self.lengths[slot] or self.mapped[slot] == self.shape.most_groups:
            return 0
        return max(0, self.needed(self.lengths[slot] + ahead) - self.mapped[slot])

    def _give_back_one(self) -> None:
        """Unmap one group of the last idle slot that has any, sparing the first idle slot."""
        idle = [slot for slot, length in enumerate(self.lengths) if not length]
        with_groups = [slot for slot in idle[1:] if self.mapped[slot]]
        if with_groups:
            self._unmap_down_to(with_groups[-1], self.mapped[with_groups[-1]] - 1)

    # -- memory --------------------------------------------------------------------------------
    def _make_free(self, groups: int) -> None:
        """Take back all that slots have beyond their lengths, last slot first, until it does."""
        for slot in reversed(range(self.shape.slots)):
            if self.free >= groups:
                return
            self._unmap_down_to(slot, self.needed(self.lengths[slot]))

    def _map(self, slot: int, groups: int) -> None:
        fit = min(groups, self.shape.most_groups - self.mapped[slot])
        self.mapped[slot] += fit
        self.free -= fit
        self._at_work.maps += fit

    def _unmap_down_to(self, slot: int, groups: int) -> None:
        spare = max(0, self.mapped[slot] - groups)
        self.mapped[slot] -= spare
        self.free += spare
        self._at_work.unmaps += spare
