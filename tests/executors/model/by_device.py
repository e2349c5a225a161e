"""Real runs of one size by kind of device: what is served, in which memory, and what is noted.

Prompts end just before a page-group of the sliced virtual layout does, so that every answer makes
its sequence grow into the next; tight pools are so tight that this preempts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np
import torch

from allocators.contiguous import Contiguous
from allocators.layered.jenga import Jenga
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost.kv import kv_geometry
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.model.real_run import RealRun
from harness.executors.model.settings import settle
from harness.executors.spec import ExecutorSpec
from harness.measure.options import load_model
from harness.measure.serving import SMALLEST_PAGE
from tests.kernels.memory.expected import expected_bytes
from tests.records import leave
from workloads.requests import RequestTable

FAMILIES = {"contiguous": Contiguous, "paged": Paged, "virtual": Virtual, "jenga": Jenga}
#: the uniform model; those with layer groups: `layers_by_device`
MODEL = "llama-tiny"
SAMPLING = {
    "greedy": SamplingSpec("greedy"),
    "beam": SamplingSpec("beam", width=4),
    "parallel": SamplingSpec("parallel", n=4, temperature=0.9, top_p=0.9),
}
MAX_SEQS = 32


@dataclass(frozen=True)
class Variant:
    """An allocator with its knobs, and how it is put under pressure ("" if it is not)."""

    family: str
    knobs: dict
    preemption: str = ""

    def __str__(self):
        knobs = ", ".join(f"{key}={value}" for key, value in self.knobs.items())
        return f"{self.family}({knobs})"


def variants(device, size):
    """Return what is served, the default allocators first."""
    per_layer = {"page_size": SMALLEST_PAGE[device]}
    sliced = {**per_layer, "layout": "sliced"}
    hashed = {"block_size": 16, "prefix_index": "hash"}
    if size == "small":
        return [Variant("paged", hashed, "swap"), Variant("virtual", sliced, "recompute")]
    found = [Variant("contiguous", {"reservation": r}) for r in ("max", "pow2", "oracle")]
    found += [Variant("paged", {"block_size": 16}), Variant("virtual", per_layer)]
    tight = [
        ("paged", hashed),
        ("virtual", sliced),
        ("contiguous", {"reservation": "grow"}),
        ("paged", {"block_size": 1}),
        ("paged", {"block_size": 7, "prefix_index": "radix"}),
        ("virtual", {**sliced, "prefix_index": "hash"}),
    ]
    found += [Variant(f, k, how) for f, k in tight for how in ("recompute", "swap")]
    found += [Variant("paged", {"block_size": tokens}) for tokens in (32, 128, 512)]
    found.append(Variant("virtual", {**sliced, "sharing": "copy"}))
    return found


@dataclass(frozen=True)
class Lengths:
    """In tokens: prompts of up to `page` - 2, answers from `shortest` to `longest`."""

    page: int
    requests: int
    shortest: int
    longest: int

    def table(self):
        """Return the requests; half of each prompt is one of two prefixes."""
        rng, n = np.random.default_rng(0), self.requests
        return RequestTable(
            arrival_s=np.zeros(n),
            prompt_tokens=rng.integers(self.page - 8, self.page - 1, n),
            output_tokens=rng.integers(self.shortest, self.longest + 1, n),
            prefix_id=rng.integers(0, 2, n),
            prefix_tokens=self.page // 2,
        )

    def tight(self, family, mode):
        """Return a pool that holds one request whole, and more at their beginning than later."""
        sequences = SAMPLING[mode].sequences
        if family == "paged":
            if sequences == 1:
                return 3 * self.page + self.longest // 2 + 16
            own = sequences * (self.longest + 16)
            # Beams share most of what they generate, until they are computed anew.
            grown = self.longest // 2 if mode == "beam" else own
            return max(2 * self.page + grown, self.page + own)
        # Rows in whole pages: a sequence begins in one and ends in two.
        return (5 if sequences == 1 else 3 * sequences) * self.page

    @property
    def most(self):
        """The longest sequence that may come."""
        return 2 * self.page

    def roomy(self, per_row=0):
        """Return a pool for all rows at their longest, of at least `per_row` tokens each."""
        return int(1.2 * MAX_SEQS * max(2 * self.page, per_row))


class Stage:
    """A model on a device, and the requests that it serves with every allocator."""

    #: of the memory in which each request is served alone
    simplest = {"reservation": "oracle"}  # noqa: RUF012
    #: tokens that a step computes at most; 0: unknown, and as the engine has it
    step_tokens = 0

    def __init__(self, device, size, **options):
        # On demand, also where a run makes handles ahead: else what is resident says nothing.
        fixed = {"dtype": "float32", "handles": "on_demand"}
        spec = ExecutorSpec(name="model", device=device, **{**fixed, **options})
        self._shape = settle(spec, self._model(device, size))
        self._real = RealRun(spec, self._shape, 5)
        self._lengths = self._sizes(device, size)
        self.requests = self._lengths.table()
        setting = {
            "model": asdict(self._shape),
            "executor": asdict(spec),
            "prompt_tokens": self.requests.prompt_tokens.tolist(),
            "output_tokens": self.requests.output_tokens.tolist(),
        }
        leave("setting", {self._shape.name: setting})

    def _model(self, device, size):
        shape = load_model(MODEL)
        return replace(shape, layers=2) if size == "small" else shape

    def _sizes(self, device, size):
        page, self._per_row = (self._page_tokens(device, how) for how in ("sliced", "per_layer"))
        return Lengths(page, 5, 10, 20) if size == "small" else Lengths(page, 8, 24, 56)

    def _page_tokens(self, device, layout):
        room = self._geometry(2**20, 0, 1)
        return Virtual(room, page_size=SMALLEST_PAGE[device], layout=layout).geometry.page_tokens

    def _geometry(self, tokens, host_tokens, max_seqs, max_len=None):
        return kv_geometry(
            self._shape, 1, capacity_tokens=tokens, host_tokens=host_tokens, max_seqs=max_seqs,
            max_len=max_len or self._shape.max_context, step_tokens=self.step_tokens,
        )  # fmt: skip

    @cache  # noqa: B019 - a stage lives as long as the tests
    def alone(self, mode):
        """Serve one request after the other in the simplest memory: nothing can disturb it."""
        pool = self._geometry(self._lengths.roomy(), 0, MAX_SEQS, self._lengths.most)
        memory = Contiguous.of(pool, **self.simplest)
        return self._serve(memory, mode, policy="static", max_num_batched_tokens=1)

    def serve(self, variant, mode):
        """Serve the requests as `variant` says."""
        tokens = self._lengths.roomy(self._per_row if variant.family == "virtual" else 0)
        engine = {"max_num_batched_tokens": self.step_tokens or None}
        if variant.preemption:
            tokens = self._lengths.tight(variant.family, mode)
            engine["preemption"] = variant.preemption
        host_tokens = 4 * tokens if variant.preemption == "swap" else 0
        room = self._geometry(tokens, host_tokens, MAX_SEQS, self._lengths.most)
        return self._serve(FAMILIES[variant.family].of(room, **variant.knobs), mode, **engine)

    def _serve(self, allocator, mode, **engine):
        sampling = SAMPLING[mode]
        with self._real.executor(allocator, self.requests, sampling) as executor:
            memory = executor.memory
            if not allocator.pages_per_group:
                memory.numbers.fill_(torch.nan)  # a pool's memory is NaN until it is written
            served = Served(memory, allocator)
            options = EngineSpec(max_num_seqs=MAX_SEQS, **engine)
            run = Engine(
                Setup(
                    allocator, self.requests, sampling, options, executor, self._real.seed, [served]
                )
            )
            log = run.run("by device")
            log.check()
            served.facts["digest"] = executor.histories.digest()
            served.facts["steps"] = log.steps
            served.facts["preemptions"] = int(log.timeline["preemptions"].sum())
            served.outputs = [executor.histories.output(i) for i in range(len(self.requests))]
        return served


def told_bytes(memory, allocator):
    """Return what should be resident: handles made ahead are held whatever is mapped."""
    if getattr(memory, "handles", "on_demand") == "ahead":
        return memory.committed_bytes
    return expected_bytes(allocator)


class Served:
    """An observer of one run: counts, and after each step asks the system what is resident.

    `resident_difference_bytes` are the least and the most that the system said beyond what the
    allocator said, from the offset before the first step.
    """

    def __init__(self, memory, allocator):
        self._memory, self.outputs = memory, []
        offset_bytes = memory.resident_bytes() - told_bytes(memory, allocator)
        self.facts = {
            "digest": "", "steps": 0, "preemptions": 0, "swapped_slots": 0, "copied_slots": 0,
            "hit_tokens": 0, "resident_offset_bytes": offset_bytes,
            "resident_difference_bytes": [0, 0], "resident_peak_bytes": 0,
        }  # fmt: skip

    def on_step(self, step):
        step.allocator.check()
        facts = self.facts
        for grant in step.plan.all_grants:
            facts["copied_slots"] += int(grant.copies[:, 2].sum())
            swaps = (grant.swaps_out, grant.swaps_in)
            facts["swapped_slots"] += sum(int(each[:, 2].sum()) for each in swaps)
        facts["hit_tokens"] += step.plan.hit_tokens
        held = self._memory.resident_bytes()
        off = held - told_bytes(self._memory, step.allocator) - facts["resident_offset_bytes"]
        low, high = facts["resident_difference_bytes"]
        facts["resident_difference_bytes"] = [min(low, off), max(high, off)]
        facts["resident_peak_bytes"] = max(facts["resident_peak_bytes"], held)

    def differing(self, expected):
        """Say how far the outputs are from others: tokens, requests, and the first of them."""
        tokens, wrong, first = 0, 0, None
        for number, (a, b) in enumerate(zip(self.outputs, expected.outputs, strict=True)):
            off = a != b
            tokens += int(off.sum())
            wrong += bool(off.any())
            if first is None and off.any():
                sequence, position = np.argwhere(off)[0].tolist()
                first = {"request": number, "sequence": sequence, "token": position}
        return {"differing_tokens": tokens, "differing_requests": wrong, "first_difference": first}


#: the stage of a device, a size and options of the executor, set up once
stage = cache(Stage)
