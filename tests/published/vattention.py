"""vAttention's figures beyond `+experiment=vattention_*`: the ends of a price, other shuffles.

    python -m tests.published.vattention [DATA [SHORTEST]]

*What a map costs.*  The largest share over prompts of 1 Ki to 192 Ki tokens that mapping takes of a
prefill, at the default price of a small page and at both ends of what it may be.

*Largest batches* over some shuffles of the trace in the folder DATA of public data, of prompts
above SHORTEST tokens (1,024).
"""

import sys
from pathlib import Path

from harness.cost.spec import SMALL_MAP_US, SMALL_MAP_US_RANGE
from harness.published.experiment import Experiment, load
from harness.published.reference import figures
from harness.published.vattention import MODELS, LongPrompts, MapShare


def experiment(name: str) -> Experiment:
    """Return an experiment that there is."""
    found = load(name)
    assert found is not None
    return found


def largest_share(model: str, map_us: float) -> float:
    """Return the largest share of a prefill that mapping its prompt takes at `map_us` a page."""
    price = (f"cost_model.map_us={{64KiB: {map_us}}}",)
    task = experiment("vattention_deferred").tasks(price, None, MapShare)["ours", model]
    return task.run()["share"]["largest"]


def batches(
    model: str, folder: Path, shortest: int = 1024, seed: int = 42
) -> list[tuple[float, float]]:
    """Return the largest batch and the mean while requests wait, of pages of 2 MiB and 64 KiB."""

    def long_prompts(options: tuple[str, ...]) -> LongPrompts:
        return LongPrompts(options, shortest, seed)

    tasks = experiment("vattention_fig15_maxbatch").tasks((), folder, long_prompts)
    found = [tasks["ours", f"{model}, {size}"].run()["virtual"] for size in ("2 MiB", "64 KiB")]
    return [(row["peak_batch"], row["saturated_mean_batch"]) for row in found]


def published_batches(model: str) -> tuple[float, float]:
    """Return the published largest batches, of pages of 2 MiB and 64 KiB."""
    rows = figures()["vattention_fig15_maxbatch"]
    large, small = (float(rows[f"{model}, {size}"].low) for size in ("2 MiB", "64 KiB"))
    return large, small


def print_batches(
    folder: Path, shortest: int = 1024, seeds: tuple[int, ...] = (42, 1, 2, 3, 4)
) -> None:
    """Print largest and mean batches over some shuffles beside the published ones."""
    for model in MODELS:
        large, small = published_batches(model)
        print(f"{model}: published {large:.0f}, {small:.0f}, ratio {small / large:.3f}")
        for seed in seeds:
            (peak, mean), (small_peak, small_mean) = batches(model, folder, shortest, seed)
            print(
                f"  shuffle {seed}: largest {peak:.0f}, {small_peak:.0f}, "
                f"ratio {small_peak / peak:.3f}; "
                f"mean {mean:.0f}, {small_mean:.0f}, ratio {small_mean / mean:.3f}"
            )


if __name__ == "__main__":
    prices = (SMALL_MAP_US_RANGE[0], SMALL_MAP_US, SMALL_MAP_US_RANGE[1])
    print("model      " + "".join(f"{price:6.0f} us" for price in prices))
    for name in MODELS:
        print(f"{name:11}" + "".join(f"{largest_share(name, price):9.1%}" for price in prices))
    if len(sys.argv) > 1:
        print_batches(Path(sys.argv[1]), *map(int, sys.argv[2:]))
