"""What the published share of mapping in a prefill says about the price of small pages.

vAttention (arXiv 2405.04437) removes "up to 15 %" of the time of a prefill at 64 KiB by deferred
reclamation, that is by not mapping the prompt's pages; it serves Yi-6B on one A100 of 80 GB and
Llama-3-8B and Yi-34B on two.  Lengths and models of the figure are not known here, so the largest
share over prompts of 1 Ki to 192 Ki tokens is given for each of the three.

    python -m tests.published.vattention
"""

from dataclasses import replace

import numpy as np

from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline, Work
from harness.cost.spec import SMALL_MAP_US, SMALL_MAP_US_RANGE
from tests.places import shipped

SETUPS = {"yi-6b": 1, "llama-3-8b": 2, "yi-34b": 2}
PUBLISHED_SHARE = 0.15
PROMPTS = [1024 * n for n in (1, 2, 4, 8, 16, 32, 64, 128, 192)]
PAGE_BYTES = 64 << 10


def largest_share(model: str, map_us: float) -> float:
    """Return the largest share of a prefill that mapping its prompt takes at `map_us` a page."""
    ranks = SETUPS[model]
    shape = shipped(ModelShape, "model", model)
    roof = Roofline(
        shape, replace(shipped(HardwareSpec, "hardware", "a100-80gb"), count=ranks), CostSpec()
    )
    tokens_a_page = PAGE_BYTES // (shape.kv_heads // ranks * shape.head_dim * shape.dtype_bytes)
    shares = []
    for prompt in PROMPTS:
        work = Work(prefill_new=np.array([prompt]), prefill_past=np.array([0]), sampled=1)
        maps_s = 2 * shape.layers * -(-prompt // tokens_a_page) * map_us * 1e-6
        shares.append(maps_s / (maps_s + roof.step_s(work)))
    return max(shares)


if __name__ == "__main__":
    prices = (SMALL_MAP_US_RANGE[0], SMALL_MAP_US, SMALL_MAP_US_RANGE[1])
    print("model       GPUs " + "".join(f"{price:6.0f} us" for price in prices))
    for name, count in SETUPS.items():
        row = "".join(f"{largest_share(name, price):9.1%}" for price in prices)
        print(f"{name:11} {count:4} {row}")
