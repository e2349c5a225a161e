"""Published figures of vAttention (arXiv 2405.04437) against the harness.

    python -m tests.published.vattention [TRACE [SHORTEST]]

*What a map costs.*  Deferred reclamation removes "up to 15 %" of the time of a prefill at 64 KiB,
that is by not mapping the prompt's pages.  Lengths and models of that figure are not known here, so
the largest share over prompts of 1 Ki to 192 Ki tokens is given for each of the three models.

*Largest batches* (Fig. 15), with the lengths of ShareGPT as Sarathi-Serve has them, the file TRACE.
The artefact's scripts give models, GPUs, the share of memory and the shuffle; which trace the
figure used is not known here.  Its request generator leaves out prompts of up to SHORTEST tokens;
1,024 is the assumption here, on which the ratios depend.
"""

import csv
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline, Work
from harness.cost.spec import SMALL_MAP_US, SMALL_MAP_US_RANGE
from harness.run import compose, prepare
from harness.run.variant import run_variant
from tests.places import shipped

#: GPUs of each model, A100s of 80 GB
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


TRACE = "sarathi-serve/sharegpt_8k_filtered_stats_llama2_tokenizer.csv"
#: largest batches with pages of 2 MiB and 64 KiB, Fig. 15
PUBLISHED_BATCHES = {"yi-6b": (187, 240), "llama-3-8b": (203, 258), "yi-34b": (56, 68)}
SHORTEST_PROMPT = 1024
REQUESTS = 600


def requests_of(trace: Path, path: Path, seed: int = 42, shortest: int = SHORTEST_PROMPT) -> Path:
    """Write the requests of `trace` that are served, shuffled as the generator does, to `path`."""
    with trace.open(newline="") as file:
        head, *rows = csv.reader(file)
    long = [row for row in rows if float(row[0]) > shortest]
    order = np.random.RandomState(seed).permutation(len(long))[:REQUESTS]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *(long[i] for i in order)])
    return path


def batch(model: str, page_size: str, requests: Path) -> tuple[float, float]:
    """Return the largest batch, and the mean batch while requests wait; all arrive at once."""
    prepared = prepare(
        compose(
            "+workload=trace", f"workload.path={requests}", f"model={model}",
            "hardware=a100-80gb", f"hardware.count={SETUPS[model]}", "memory=vllm-2023",
            "hardware.memory_utilization=0.9", "engine.max_len=8192", "engine.max_num_seqs=512",
            "allocator=[virtual]", f"allocators.virtual.page_size={page_size}",
        )
    )  # fmt: skip
    row, _ = run_variant(prepared, "virtual")
    assert row.ok, row.reason
    return row.metrics["peak_batch"], row.metrics["saturated_mean_batch"]


def print_batches(
    trace: Path, shortest: int = SHORTEST_PROMPT, seeds: tuple[int, ...] = (42, 1, 2, 3, 4)
) -> None:
    """Print largest and mean batches over some shuffles beside the published ones."""
    for model, (large, small) in PUBLISHED_BATCHES.items():
        print(f"{model}: published {large}, {small}, ratio {small / large:.3f}")
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                requests = requests_of(trace, Path(folder) / "requests.csv", seed, shortest)
                sizes = [batch(model, page_size, requests) for page_size in ("2MiB", "64KiB")]
            (peak, mean), (small_peak, small_mean) = sizes
            print(
                f"  shuffle {seed}: largest {peak:.0f}, {small_peak:.0f}, "
                f"ratio {small_peak / peak:.3f}; "
                f"mean {mean:.0f}, {small_mean:.0f}, ratio {small_mean / mean:.3f}"
            )


if __name__ == "__main__":
    prices = (SMALL_MAP_US_RANGE[0], SMALL_MAP_US, SMALL_MAP_US_RANGE[1])
    print("model       GPUs " + "".join(f"{price:6.0f} us" for price in prices))
    for name, count in SETUPS.items():
        row = "".join(f"{largest_share(name, price):9.1%}" for price in prices)
        print(f"{name:11} {count:4} {row}")
    if len(sys.argv) > 1:
        print_batches(Path(sys.argv[1]), *map(int, sys.argv[2:]))
