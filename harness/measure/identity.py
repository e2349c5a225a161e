"""The step `identity`: in float32, the same tokens from every allocator, also under pressure.

Prompts end just before a page-group of the sliced virtual layout does, so that every answer makes
its sequence grow into the next; pools are so tight that this preempts.  What each request emits
alone, in the simplest memory, is the measure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from allocators.base import Allocator, Geometry
from allocators.virtual import Virtual
from harness.measure.job import Job, one_line
from harness.measure.serving import FAMILIES, SAMPLING, Served, differing, geometry, serve
from workloads.requests import RequestTable

MODES = ("greedy", "beam", "parallel")
MAX_SEQS = 32
#: the least that a GPU's driver maps, and what a CPU's does in tiny sizes
PAGE_SIZE = {"cuda": "2MiB", "cpu": "64KiB"}


@dataclass(frozen=True)
class Variant:
    """An allocator with its knobs, and how it is put under pressure ("" if it is not)."""

    family: str
    knobs: dict[str, Any]
    preemption: str = ""

    @property
    def name(self) -> str:
        knobs = ", ".join(f"{key}={value}" for key, value in self.knobs.items())
        return f"{self.family}({knobs})"


def variants(page_size: str, quick: bool) -> list[Variant]:
    """Return what is served, the default allocators first."""
    per_layer = {"page_size": page_size}
    sliced = {**per_layer, "layout": "sliced"}
    hashed = {"block_size": 16, "prefix_index": "hash"}
    if quick:
        return [
            Variant("paged", hashed, "swap"),
            Variant("virtual", sliced, "recompute"),
        ]
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
    found += [Variant("paged", {"block_size": size}) for size in (32, 128, 512)]
    found.append(Variant("virtual", {**sliced, "sharing": "copy"}))
    return found


@dataclass(frozen=True)
class Sizes:
    """Lengths in tokens: prompts of up to `page` - 2, answers of up to `longest`."""

    page: int
    requests: int
    shortest: int
    longest: int

    def table(self, seed: int = 0) -> RequestTable:
        """Return the requests; half of each prompt is one of two prefixes."""
        rng, n = np.random.default_rng(seed), self.requests
        return RequestTable(
            arrival_s=np.zeros(n),
            prompt_tokens=rng.integers(self.page - 8, self.page - 1, n),
            output_tokens=rng.integers(self.shortest, self.longest + 1, n),
            prefix_id=rng.integers(0, 2, n),
            prefix_tokens=self.page // 2,
        )

    def tight(self, family: str, mode: str) -> int:
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

    def roomy(self, per_row: int) -> int:
        """Return a pool for all rows at their longest, of at least `per_row` tokens each."""
        return int(1.2 * MAX_SEQS * max(2 * self.page, per_row))


def run(job: Job) -> None:
    """Fill `results.cases`, a row for each mode and variant."""
    from harness.executors.model.real_run import RealRun
    from harness.executors.model.settings import settle
    from harness.executors.spec import ExecutorSpec
    from harness.measure.calibrate.options import load_model

    kind = job.device.type
    spec = ExecutorSpec(name="model", device=kind, dtype="float32")
    shape = settle(spec, load_model("llama-tiny"))
    if job.quick:
        shape = replace(shape, layers=2)
    real = RealRun(spec, shape, 5)
    page_size = PAGE_SIZE[kind]
    pages = [
        Virtual(_probe(shape), page_size=page_size, layout=layout).geometry.page_tokens
        for layout in ("sliced", "per_layer")
    ]
    sizes = Sizes(pages[0], 5, 10, 20) if job.quick else Sizes(pages[0], 8, 24, 56)
    table = sizes.table()
    rows: list[dict[str, Any]] = []
    job.results |= {"model": asdict(shape), "executor": asdict(spec), "cases": rows}
    job.results["prompt_tokens"] = table.prompt_tokens.tolist()
    job.results["output_tokens"] = table.output_tokens.tolist()
    for mode in MODES:
        if not job.room(f"{mode}, all", 1.0):
            continue
        # One after the other, in the simplest memory: nothing can disturb it.
        alone_in = FAMILIES["contiguous"](
            geometry(shape, sizes.roomy(0), 0, 2 * sizes.page, MAX_SEQS), reservation="oracle"
        )
        alone = serve(real, alone_in, table, mode, policy="static", max_num_batched_tokens=1)
        for variant in variants(page_size, job.quick):
            if job.room(f"{mode} {variant.name} {variant.preemption}", 0.5):
                rows.append(_case(real, shape, sizes, table, mode, variant, pages[1], alone))
                job.save()
    _judge(job, rows)


def _probe(shape: Any) -> Geometry:
    """Return a pool large enough for a page-group, to ask an allocator what a page holds."""
    return geometry(shape, 2**20, 0, shape.max_context, 1)


def _case(
    real: Any, shape: Any, sizes: Sizes, table: RequestTable, mode: str, variant: Variant,
    per_row: int, alone: Served,
) -> dict[str, Any]:  # fmt: skip
    row = {"mode": mode, "allocator": variant.name, "pressure": variant.preemption or "none"}
    engine = {"preemption": variant.preemption} if variant.preemption else {}
    tokens = sizes.roomy(per_row if variant.family == "virtual" else 0)
    if variant.preemption:
        tokens = sizes.tight(variant.family, mode)
    host = 4 * tokens if variant.preemption == "swap" else 0
    room = geometry(shape, tokens, host, 2 * sizes.page, MAX_SEQS)
    try:
        allocator: Allocator = FAMILIES[variant.family](room, **variant.knobs)
        served = serve(real, allocator, table, mode, **engine)
    except Exception as error:
        # A pool too tight for a case, or a fault in one allocator: the others are still of use.
        return {**row, "status": "failed", "reason": one_line(error)}
    facts = {key: value for key, value in vars(served).items() if key != "outputs"}
    same = served.digest == alone.digest
    found = {**row, "status": "ok" if same else "differs", "reason": "", **facts}
    return found if same else {**found, **differing(served, alone)}


def _judge(job: Job, rows: list[dict[str, Any]]) -> None:
    served = [row for row in rows if row["status"] != "failed"]
    same = all(row["status"] == "ok" for row in served)
    resident = all(row["resident_difference_bytes"] == [0, 0] for row in served)
    job.results |= {"same_outputs": same, "resident_agrees": resident}
    wrong = [row for row in rows if row["status"] != "ok"]
    if wrong:
        one = wrong[0]
        raise AssertionError(
            f"{len(wrong)} of {len(rows)} runs differ or fail, first {one['mode']} "
            f"{one['allocator']} pressure={one['pressure']}: {one['reason'] or one['status']}"
        )
