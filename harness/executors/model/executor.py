"""The model executor: a real decoder whose KV lives in memory that the grants really move.

    plan.grants  -> swaps out, unmaps, maps, swaps in, copies
    prefills     -> their maps; then plan.before; a thread begins with plan.beside
    rows, chunks and the prompts of prefills, in one pass
    prefills     -> their copies, the private tokens in a second pass
    logits       -> a token for each sequence, and for beams the one it continues

Time is the wall clock, around exactly this; what the allocator thinks is measured apart
(`allocator_host_s`).  Between two steps nothing passes, so a gap between arrivals is not slept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from allocators.base import EMPTY_GRANT, Allocator, Grant, IntArray, Unsupported
from harness.engine.config import SamplingSpec
from harness.engine.group import Group
from harness.engine.plan import Plan, Prefill
from harness.engine.running import Running
from harness.executors.model.forward import Forward, Pieces
from harness.executors.model.graphs import Capture
from harness.executors.model.histories import Histories
from harness.executors.model.sampling import Sampler
from kernels.memory import Backing, OutOfMemory
from kernels.memory.host_space import HostSpace, LayeredHost
from kernels.memory.layered import LayeredBacking
from workloads.requests import RequestTable

if TYPE_CHECKING:
    from harness.executors.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions `start`..`stop` - 1 of one sequence of a group; `last`: a token comes of it."""

    group: Group
    sequence: int
    row: int
    start: int
    stop: int
    last: bool = True


class ModelExecutor:
    """Computes plans.  A context manager: leaving it unmaps and frees the memory."""

    skips = False

    def __init__(
        self,
        decoder: Decoder,
        allocator: Allocator,
        memory: Backing,
        requests: RequestTable,
        sampling: SamplingSpec,
        seed: int,
        backend: str,
        *,
        single: bool = False,
        capture: Capture | None = None,
    ) -> None:
        """`memory` is this executor's from now on; for the last two see `Forward`."""
        if sampling.mode == "speculative":
            raise Unsupported(
                "executor=model has no draft model: sampling.mode=speculative is simulated only"
            )
        self._allocator, self._memory = allocator, memory
        layered = isinstance(memory, LayeredBacking)
        self._host = LayeredHost(memory) if layered else HostSpace(memory)
        self._forward = Forward(decoder, allocator, memory, backend, single=single, capture=capture)
        self.sampler = Sampler(sampling, seed)
        self.histories = Histories(requests, decoder.shape.vocab)
        self._running: Running | None = None
        self._mapping_seen_s = 0.0
        self._committed_peak_bytes = -1
        self.resident_peak_bytes = 0

    def begin(self, running: Running) -> None:
        """Learn of the running batch: who decodes in which row, and where beams are noted."""
        self._running = running

    def warm_up(self) -> None:
        """Compile, load and capture what the first steps would otherwise wait for."""
        self._forward.warm_up()
        self._memory.rebase()

    @property
    def memory(self) -> Backing:
        return self._memory

    # -- the step ----------------------------------------------------------------------------
    def step(self, plan: Plan, lengths: IntArray) -> float:
        """Run one step and return the seconds it took."""
        began_s = time.perf_counter()
        try:
            self._run(plan)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"activations: {error}") from error
        if self._memory.device.type == "cuda":
            torch.cuda.synchronize(self._memory.device)
        seconds = time.perf_counter() - began_s
        self._watch_memory()
        return seconds

    def _run(self, plan: Plan) -> None:
        self._memory.wait()  # for what went on beside the last step
        for grant in plan.grants:
            self._move(grant)
            self._memory.copy(grant)
        for prefill in plan.prefills:
            self._move(prefill.grant)
        self._move(plan.before)
        self._memory.map_beside(plan.beside)
        pieces = self._decoding(plan.rows) + self._chunks(plan)
        if plan.prefills:
            self._prefill(plan.prefills, pieces)
        elif pieces:
            self._sample(pieces, self._compute(pieces))

    def window(self, grants: list[Grant], lengths: IntArray, steps: int) -> np.ndarray:
        raise AssertionError("real steps are run one by one")

    def map_s(self, grant: Grant) -> float:
        """Return the seconds of maps and unmaps since this was last asked.

        What the background is still mapping counts when this is next asked, or at the end.
        """
        spent_s = self._memory.mapping_s - self._mapping_seen_s
        self._mapping_seen_s += spent_s
        return spent_s

    def finish(self) -> float:
        """Wait for what goes on beside the last step; return seconds that `map_s` has not."""
        self._memory.wait()
        return self.map_s(EMPTY_GRANT)

    def _prefill(self, prefills: list[Prefill], beside: list[Piece]) -> None:
        """Compute prompts whole, in one pass with the pieces `beside` them."""
        prompts, private = beside, []
        for p in prefills:
            group, stop = p.group, p.prompt_tokens
            row = int(group.rows[0])
            alone = not p.private_tokens
            prompts.append(Piece(group, 0, row, p.grant.cached_tokens, stop, last=alone))
            if not alone:
                private += [
                    Piece(group, i, row, stop, stop + p.private_tokens)
                    for i, row in enumerate(group.rows.tolist())
                ]
        hidden = [self._compute(prompts)]
        for prefill in prefills:
            self._memory.copy(prefill.grant)
        if private:
            hidden.append(self._compute(private))
        self._sample(prompts + private, torch.cat(hidden))

    def _decoding(self, rows: IntArray) -> list[Piece]:
        assert self._running is not None, "begin comes before the first step"
        owners = dict(zip(self._running.rows.tolist(), self._running.owner.tolist(), strict=True))
        lengths = self._allocator.length
        pieces = []
        for row in rows.tolist():
            group = self._running.groups[owners[row]]
            # Groups decode whole and in order, so the place within one is that in its rows.
            sequence = 0 if group.sequences == 1 else int(np.flatnonzero(group.rows == row)[0])
            stop = int(lengths[row])
            pieces.append(Piece(group, sequence, row, stop - 1, stop))
        return pieces

    def _chunks(self, plan: Plan) -> list[Piece]:
        return [
            Piece(
                chunk.group,
                chunk.sequence,
                int(chunk.group.rows[chunk.sequence]),
                chunk.past_tokens,
                chunk.past_tokens + chunk.new_tokens,
                chunk.last,
            )
            for chunk in plan.chunks
        ]

    # -- compute -----------------------------------------------------------------------------
    def _compute(self, pieces: list[Piece]) -> torch.Tensor:
        tokens = [self.histories.piece(p.group, p.sequence, p.start, p.stop) for p in pieces]
        return self._forward.run(
            Pieces(
                rows=np.array([p.row for p in pieces], dtype=np.int64),
                starts=np.array([p.start for p in pieces], dtype=np.int64),
                stops=np.array([p.stop for p in pieces], dtype=np.int64),
                tokens=np.concatenate(tokens),
            )
        )

    def _sample(self, pieces: list[Piece], hidden: torch.Tensor) -> None:
        """Choose the next tokens of the groups whose `last` piece is here; hidden: [pieces, H]."""
        at = [i for i, piece in enumerate(pieces) if piece.last]
        if not at:
            return
        groups: list[Group] = []
        edges: list[int] = []
        for n, i in enumerate(at):
            if not groups or groups[-1] is not pieces[i].group:
                groups.append(pieces[i].group)
                edges.append(n)
        rows = [slice(a, b) for a, b in zip(edges, [*edges[1:], len(at)], strict=True)]
        if len(at) < len(pieces):
            hidden = hidden[torch.as_tensor(at, device=hidden.device)]
        emitted = [self.histories.emitted(group.index) for group in groups]
        choices = self.sampler.choose(self._forward.logits(hidden), rows, groups, emitted)
        for group, n, choice in zip(groups, emitted, choices, strict=True):
            self.histories.append(group, choice.tokens, choice.parents)
            if choice.parents is not None and n < len(group.lineage):
                group.lineage[n] = choice.parents
                self._running.note_parents(group, n)

    # -- memory ------------------------------------------------------------------------------
    def _move(self, grant: Grant) -> None:
        """Execute all of a grant but its copies."""
        self._host.save(grant)
        if len(grant.maps) or len(grant.unmaps):
            self._memory.map(grant)
        self._host.fetch(grant)

    def _watch_memory(self) -> None:
        """Ask the system how much is resident whenever we hold more than ever before."""
        committed = self._memory.committed_bytes
        if committed > self._committed_peak_bytes:
            self._committed_peak_bytes = committed
            self.resident_peak_bytes = max(self.resident_peak_bytes, self._memory.resident_bytes())

    # -- end ---------------------------------------------------------------------------------
    def close(self) -> None:
        self._forward.close()  # its views of the memory, or the memory would stay
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
