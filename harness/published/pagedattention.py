"""The numbers of the PagedAttention paper's figures (SOSP 2023, arXiv 2309.06180), from our runs."""

from __future__ import annotations

from harness.published.experiment import Runs

#: the paper's systems and what stands for them here
ORCA = {
    "Orca (Max)": "contiguous_max",
    "Orca (Pow2)": "contiguous_pow2",
    "Orca (Oracle)": "contiguous_oracle",
}
SYSTEMS = {**ORCA, "vLLM": "paged"}


def fig2(runs: Runs) -> dict[str, float]:
    """Return shares of the pool while requests wait, percent."""
    return {
        f"{system}, {part}": 100 * runs.get("at once", allocator, f"saturated_{part}_share")
        for system, allocator in {**SYSTEMS, "virtual, 2 MiB": "virtual"}.items()
        for part in ("token", "reserved", "internal", "external")
    }


def fig12(runs: Runs) -> dict[str, float]:
    """Return the rates that are sustained, their ratios, and ratios of requests/s at once."""
    rate = {name: runs.get("sustained", a, "rate") for name, a in SYSTEMS.items()}
    rate["FasterTransformer"] = runs.get("sustained, static", "contiguous_max", "rate")
    at_once = {name: runs.get("at once", a, "requests_per_s") for name, a in SYSTEMS.items()}
    at_once["FasterTransformer"] = runs.get("static", "contiguous_max", "requests_per_s")
    others = ("Orca (Oracle)", "Orca (Max)", "FasterTransformer")
    return {
        **{f"vLLM over {name}, sustained rate": rate["vLLM"] / rate[name] for name in others},
        **{f"{name}, sustained rate, requests/s": value for name, value in rate.items()},
        **{f"vLLM over {name}, all at once": at_once["vLLM"] / at_once[name] for name in others},
    }


def fig13(runs: Runs) -> dict[str, float]:
    """Return the requests in the batch, mean over the run."""
    return {
        f"{setup}, {rate} req/s, {system}": runs.get(setup, allocator, "mean_batch")
        for setup, rate in (("ShareGPT", 2), ("Alpaca", 30))
        for system, allocator in SYSTEMS.items()
    }


def fig14(runs: Runs) -> dict[str, float]:
    """Return ratios of requests/s."""
    return {
        "vLLM over Orca (Oracle), basic sampling": _gain(runs, "basic"),
        "vLLM over Orca (Oracle), beams of width 6": _gain(runs, "beams"),
    }


def fig15(runs: Runs) -> dict[str, float]:
    """Return the blocks that sharing saves, percent."""
    rows = {}
    for data, sizes in (("Alpaca", (2, 4, 6)), ("ShareGPT", (2, 6))):
        for mode, text in (("parallel", "parallel sampling, {}, n ="), ("beam", "beam search, {}, width")):
            for n in sizes:
                saved = runs.get(f"{mode} {data} {n}", "paged", "sharing_saved")
                rows[f"{text.format(data)} {n}"] = 100 * saved
    return rows


def _gain(runs: Runs, setup: str, over: str = "contiguous_oracle") -> float:
    paged, other = (runs.get(setup, name, "requests_per_s") for name in ("paged", over))
    return paged / other
