"""A slow model of the scheduler that drives vAttention's manager, one iteration a call.

Follows `vllm_scheduler.py`, `vattention_block_space_manager.py` and `vATTN_cache_engine.py` of
microsoft/vattention, as the recorded step logs were driven: all requests wait from the start.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.allocators.virtual.slow_manager import OutOfMemory, SlowManager


@dataclass
class Request:
    """`tokens` counts the prompt and what was generated so far."""

    id: int
    prompt: int
    output: int
    generated: int = 0
    slot: int = -1

    @property
    def tokens(self) -> int:
        return self.prompt + self.generated

    @property
    def done(self) -> bool:
        return self.generated == self.output


@dataclass
class SlowScheduler:
    """`waiting` in order of arrival; `step` makes one iteration and returns its line of a log.

    `background`: the asynchronous step.  `late_release`: a preempted request keeps its slot for
    one iteration more.  `prefill_emits`: a prefill also samples a token.
    """

    manager: SlowManager
    waiting: list[Request]
    watermark: int
    background: bool = True
    late_release: bool = False
    prefill_emits: bool = False
    running: list[Request] = field(default_factory=list)
    #: preempted requests that still hold their slots
    leaving: list[Request] = field(default_factory=list)
    number: int = 0

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    def step(self) -> dict[str, object]:
        """Schedule, call the manager, end what is complete; the fields are those of the logs."""
        manager = self.manager
        manager.start_counting()
        self.number += 1
        free_seen = manager.available()
        admitted = self._admit(free_seen)
        preempted = [] if admitted else self._make_room(free_seen)
        preempted_ids = [request.id for request in preempted]
        if not (admitted or self.running or preempted or self.leaving):
            raise RuntimeError(f"request {self.waiting[0].id} will never be admitted")
        self._free_slots(self.leaving)
        self.leaving = preempted if self.late_release else []
        if not self.late_release:
            self._free_slots(preempted)
        for request in admitted:
            slot = manager.take_slot(request.tokens)
            assert slot is not None, "more requests run than there are slots"
            request.slot = slot
        batch = list(admitted or self.running)
        failures, dropped = self._call(batch)
        line = {
            "step": self.number,
            "kind": "prefill" if admitted else "decode",
            "free_seen": free_seen,
            "requests": [request.id for request in batch],
            "slots": [request.slot for request in batch],
            "lengths": [request.tokens for request in batch],
            "admitted": [request.id for request in admitted],
            "preempted": preempted_ids,
            "oom": failures,
            "oom_preempted": [request.id for request in dropped],
            **self._memory(),
        }
        return {**line, "ended": self._complete(batch, sampled=self.prefill_emits or not admitted)}

    # -- the rules -----------------------------------------------------------------------------
    def _admit(self, free: int) -> list[Request]:
        admitted: list[Request] = []
        promised = 0
        while self.waiting and len(self.running) < self.manager.shape.slots:
            needed = self.manager.needed(self.waiting[0].tokens)
            if free - promised - needed < self._kept_free():
                break
            promised += needed
            admitted.append(self.waiting.pop(0))
            self.running.append(admitted[-1])
        return admitted

    def _kept_free(self) -> int:
        return self.watermark

    def _make_room(self, free: int) -> list[Request]:
        """Preempt the latest until one group is left for each that goes on.

        What is promised is the group of the token after this step's; this step's own group was
        promised one step earlier, and that promise is forgotten by now.
        """
        preempted: list[Request] = []
        promised = 0
        to_see = sorted(self.running, key=lambda request: request.id)
        self.running = []
        while to_see:
            request = to_see.pop(0)
            while free - promised <= 0:
                victim = to_see.pop() if to_see else request
                preempted.append(victim)
                self.waiting.insert(0, victim)
                free += self.manager.needed(victim.tokens)
                if victim is request:
                    break
            else:
                tokens = request.tokens
                promised += self.manager.needed(tokens + 1) - self.manager.needed(tokens)
                self.running.append(request)
        return preempted

    def _call(self, batch: list[Request]) -> tuple[int, list[Request]]:
        """Step the manager; each time it fails, the latest request gives up its slot.

        With late release, one that was preempted in this iteration goes first.  Returns how often
        it failed and which running requests were dropped, also from the batch.
        """
        failures, dropped = 0, []
        while True:
            lengths = list(self.manager.lengths)
            for request in batch:
                lengths[request.slot] = request.tokens
            try:
                (self.manager.step_async if self.background else self.manager.step_sync)(lengths)
            except OutOfMemory:
                failures += 1
                if self.leaving:
                    self._free_slots([self.leaving.pop()])
                    continue
                latest = self.running.pop()
                if latest in batch:
                    batch.remove(latest)
                self.waiting.insert(0, latest)
                dropped.append(latest)
                self._free_slots([latest])
            else:
                return failures, dropped

    def _complete(self, batch: list[Request], sampled: bool) -> list[int]:
        ended = []
        for request in batch if sampled else []:
            request.generated += 1
            if request.done:
                ended.append(request)
        self._free_slots(ended)
        self.running = [request for request in self.running if request not in ended]
        return [request.id for request in ended]

    # -- bookkeeping ---------------------------------------------------------------------------
    def _free_slots(self, requests: list[Request]) -> None:
        for request in requests:
            self.manager.leave_slot(request.slot)
            request.slot = -1

    def _memory(self) -> dict[str, object]:
        manager = self.manager
        critical, background = manager.critical, manager.background
        return {
            "slot_lengths": list(manager.lengths),
            "mapped": list(manager.mapped),
            "mapped_critical": list(manager.mapped_critical),
            "free": manager.free,
            "cached": manager.cached,
            "map_critical": critical.maps,
            "unmap_critical": critical.unmaps,
            "map_background": background.maps,
            "unmap_background": background.unmaps,
            "calls_critical": manager.shape.calls(critical.maps, critical.unmaps),
            "calls_background": manager.shape.calls(background.maps, background.unmaps),
        }


class CarefulScheduler(SlowScheduler):
    """The rules where this project departs from them, so that no run spins or fails.

    The watermark and the group that must be free before a sequence goes on are asked for only
    beside others, as one that is alone would wait for them for ever.  And nothing is run that
    the manager could not back: the latest is preempted until it can.
    """

    def _kept_free(self) -> int:
        return self.watermark if self.running else 0

    def _make_room(self, free: int) -> list[Request]:
        going = sorted(self.running, key=lambda request: request.id)
        preempted: list[Request] = []
        while not may_grow(self.manager, [(r.slot, r.tokens) for r in going], free, preempted):
            preempted.append(going.pop())
            self.waiting.insert(0, preempted[-1])
            free += self.manager.needed(preempted[-1].tokens)
        self.running = going
        return preempted


def may_grow(
    manager: SlowManager, going: list[tuple[int, int]], free: int, leaving: Iterable[Request] = ()
) -> bool:
    """Say whether all that go on, (slot, tokens with the new one), may do so together.

    `free` is what the scheduler counts as free, the groups of `leaving` included, whose slots
    are still held.
    """
    promised = 0
    for _, tokens in going:
        if free - promised <= 0 and len(going) > 1:
            return False
        promised += manager.needed(tokens + 1) - manager.needed(tokens)
    spare = manager.available() + sum(manager.needed(manager.lengths[r.slot]) for r in leaving)
    grown = sum(manager.needed(n) - manager.needed(manager.lengths[slot]) for slot, n in going)
    return grown <= spare
