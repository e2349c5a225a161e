"""Numbers of the PagedAttention paper's figures (SOSP 2023, arXiv 2309.06180), from our runs."""

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
        for setup, rate in (("ShareGPT", 2), ("Alpaca", 30), ("Alpaca, public lengths", 30))
        for system, allocator in SYSTEMS.items()
    }


def fig14(runs: Runs) -> dict[str, float]:
    """Return ratios of the rates that are sustained, and of requests/s at once."""
    rows = {}
    for setup, sampling in (("basic", "basic sampling"), ("beams", "beams of width 6")):
        rows[f"{sampling}, sustained rate"] = _gain(runs, f"{setup}, sustained", "rate")
        rows[f"{sampling}, all at once"] = _gain(runs, setup)
    return rows


def fig15(runs: Runs) -> dict[str, float]:
    """Return the blocks that sharing saves, percent."""
    rows = {}
    for data, sizes in (
        ("Alpaca", (2, 4, 6)),
        ("ShareGPT", (2, 6)),
        ("public Alpaca", (2, 4, 6)),
    ):
        for mode, text in (
            ("parallel", "parallel sampling, {}, n ="),
            ("beam", "beam search, {}, width"),
        ):
            for n in sizes:
                saved = runs.get(f"{mode} {data} {n}", "paged", "sharing_saved")
                rows[f"{text.format(data)} {n}"] = 100 * saved
    return rows


def fig16(runs: Runs) -> dict[str, float]:
    """Return ratios of requests/s with a shared prefix of so many tokens."""
    rows = {}
    for tokens in (80, 341):
        rows[f"prefix of {tokens} tokens, vLLM over Orca (Oracle)"] = _gain(runs, str(tokens))
        paged = runs.get(f"{tokens}, without index", "paged", "requests_per_s")
        oracle = runs.get(str(tokens), "contiguous_oracle", "requests_per_s")
        rows[f"the same without an index, {tokens} tokens"] = paged / oracle
        for most in (32, 48, 64):
            gain = _gain(runs, f"{tokens}, own part to {most}")
            rows[f"the same with own parts of 16 to {most} tokens, {tokens} tokens"] = gain
    return rows


def fig17(runs: Runs) -> dict[str, float]:
    """Return the rates that are sustained, and their ratios."""
    rate = {name: runs.get("sustained", a, "rate") for name, a in SYSTEMS.items()}
    ratios = {f"vLLM over {name}, sustained rate": rate["vLLM"] / rate[name] for name in ORCA}
    return {**ratios, **{f"{name}, requests/s": value for name, value in rate.items()}}


def fig18(runs: Runs) -> dict[str, float]:
    """Return the block size of least latency, and each one's latency over it."""
    rows, sizes = {}, (1, 2, 4, 8, 16, 32, 64, 128, 256)
    for data in ("ShareGPT", "Alpaca"):
        latency = {b: runs.get(f"{data} {b}", "paged", "normalized_latency_mean_s") for b in sizes}
        best = min(latency, key=latency.__getitem__)
        rows[f"best block size, {data}"] = float(best)
        for b in sizes:
            rows[f"{data}, block {b}, latency over the best"] = latency[b] / latency[best]
    return rows


def fig19(runs: Runs) -> dict[str, float]:
    """Return ratios of requests/s by what preemption does and by block size."""
    rate = {
        (how, block): runs.get(f"{how} {block}", "paged", "requests_per_s")
        for how in ("recompute", "swap")
        for block in (1, 4, 16, 32, 64, 256)
    }
    rows = {
        f"{how}, block 1 over block 64, requests/s": rate[how, 1] / rate[how, 64]
        for how in ("recompute", "swap")
    }
    free = [runs.get(f"recompute {block}, free", "paged", "requests_per_s") for block in (1, 64)]
    rows["recompute, the same with blocks free of cost, requests/s"] = free[0] / free[1]
    for block in (1, 4, 16, 32, 64, 256):
        ratio = rate["swap", block] / rate["recompute", block]
        rows[f"swap over recompute, block {block}, requests/s"] = ratio
    return rows


def _gain(runs: Runs, setup: str, metric: str = "requests_per_s") -> float:
    paged, oracle = (runs.get(setup, name, metric) for name in ("paged", "contiguous_oracle"))
    return paged / oracle
