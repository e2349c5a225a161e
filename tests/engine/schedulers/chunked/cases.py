"""Every family on one small pool, and requests whose prompts have common beginnings."""

import numpy as np
import yaml

from allocators.base import Geometry
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.executors.simulated import SimulatedExecutor
from tests.places import CONF
from workloads.requests import RequestTable

#: what vLLM's scheduler and manager say of a step, and which column of a timeline that is
COLUMNS = {
    "running": "running",
    "waiting": "waiting",
    "tokens": "batched_tokens",
    "blocks_in_use": "blocks_in_use",
    "hit_tokens": "hit_tokens",
    "preemptions": "preemptions",
}
#: a page-group of 64 KiB holds 8 tokens of it
POOL = Geometry(capacity_tokens=480, max_seqs=20, max_len=96, layers=2, kv_heads=8, head_dim=512)
FAMILIES = {
    **{
        f"contiguous_{reservation}": {"of": Contiguous, "reservation": reservation}
        for reservation in ("max", "pow2", "oracle", "grow")
    },
    "paged": {"of": Paged, "block_size": 16},
    "paged_one": {"of": Paged, "block_size": 1},
    "paged_hash": {"of": Paged, "block_size": 8, "prefix_index": "hash"},
    "paged_radix": {"of": Paged, "block_size": 4, "prefix_index": "radix"},
    "paged_lfu": {"of": Paged, "block_size": 4, "prefix_index": "hash", "eviction": "lfu"},
    "virtual": {"of": Virtual, "page_size": "64KiB"},
    "virtual_copy": {"of": Virtual, "page_size": "64KiB", "sharing": "copy"},
    "virtual_plain": {
        "of": Virtual,
        "page_size": "64KiB",
        **{"deferred": False, "background": False},
    },
}


def allocator(family):
    knobs = dict(FAMILIES[family])
    return knobs.pop("of")(POOL, **knobs)


def executor(of):
    model = ModelShape(**yaml.safe_load((CONF / "model" / "llama-tiny.yaml").read_text()))
    hardware = HardwareSpec(**yaml.safe_load((CONF / "hardware" / "a10g.yaml").read_text()))
    return SimulatedExecutor(Roofline(model, hardware, CostSpec()), of)


class Checked:
    """Prices steps, after it has checked every invariant of the allocator."""

    skips = False

    def __init__(self, of):
        self._of, self._inner = of, executor(of)

    def step(self, plan, lengths):
        self._of.check()
        assert min(self._of.balance()) >= 0
        return self._inner.step(plan, lengths)

    def map_s(self, grant):
        return 0.0

    def window(self, grants, lengths, steps):
        raise AssertionError("it does not skip")


def requests(n=60, arrivals="at_once", seed=3):
    """Return prompts with four common beginnings, of 1 to 45 tokens."""
    rng = np.random.default_rng(seed)
    stems = rng.integers(0, 1000, (4, 30))
    token_ids = [
        np.concatenate([stems[rng.integers(4), : rng.integers(1, 30)], rng.integers(0, 1000, own)])
        for own in rng.integers(0, 16, n)
    ]
    gaps = {"at_once": np.zeros(n), "poisson": rng.exponential(4e-3, n)}
    return RequestTable(
        arrival_s=np.cumsum(gaps.get(arrivals, gaps["at_once"])),
        prompt_tokens=np.array([len(ids) for ids in token_ids]),
        output_tokens=np.minimum(rng.geometric(1 / 18, n), 45),
        token_ids=token_ids,
        concurrency=7 if arrivals == "closed" else None,
    )
