"""The numbers of the vAttention paper (ASPLOS 2025, arXiv 2405.04437v3), from our runs.

What is known of its set-ups, and what is assumed here, stands in `docs/virtual.md`.
"""

from __future__ import annotations

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from allocators.virtual.shape import PAGE_BYTES, page_group_tokens
from harness.cost import Work, make_cost
from harness.published.experiment import Runs
from harness.published.tasks import Compare, Found, prepared_for
from harness.results import RunLog

MODELS = ("Yi-6B", "Llama-3-8B", "Yi-34B")
#: prompts over which the largest share of a prefill is sought
PROMPTS = tuple(1024 * n for n in (1, 2, 4, 8, 16, 32, 64, 128, 192))
#: a decode step that takes so much longer than the median of its neighbours is a spike
SPIKE_MS = 1.0
NEIGHBOURS = 25
#: so many of a trace's long prompts are served
REQUESTS = 600
_TITLES = {"64KiB": "64 KiB", "128KiB": "128 KiB", "256KiB": "256 KiB", "2MiB": "2 MiB"}


@dataclass(frozen=True)
class PageGroups:
    """Tokens a page-group, and the MiB of one over all tensors and ranks, by page size."""

    options: tuple[str, ...]

    def run(self) -> Found:
        shape = prepared_for(self.options).geometry
        tokens, largest_mib = {}, {}
        for size, title in _TITLES.items():
            tokens[title] = page_group_tokens(shape, PAGE_BYTES[size], "per_layer")
            largest_mib[title] = 2 * shape.layers * shape.ranks * PAGE_BYTES[size] / 2**20
        tokens["2 MiB sliced"] = page_group_tokens(shape, PAGE_BYTES["2MiB"], "sliced")
        return {"tokens": tokens, "mib": largest_mib}


def table8(runs: Runs) -> dict[str, float]:
    """Return tokens a page-group, and the ends of the worst-case waste a request."""
    rows, waste = {}, []
    for model in ("Yi-6B, 1 GPU", "Llama-3-8B, 1 GPU", "Llama-3-8B, 2 GPUs", "Yi-34B, 1 GPU",
                  "Yi-34B, 2 GPUs"):  # fmt: skip
        found = runs.found(model)
        rows |= {f"{model}, {title}": float(n) for title, n in found["tokens"].items()}
        waste.append(found["mib"])
    for title in ("64 KiB", "256 KiB"):
        sizes = [each[title] for each in waste]
        rows[f"worst-case waste a request, least, {title}"] = min(sizes)
        rows[f"worst-case waste a request, most, {title}"] = max(sizes)
    return rows


@dataclass(frozen=True)
class LongPrompts(Compare):
    """A comparison on the prompts of a CSV of lengths above `shortest`, shuffled, all at once."""

    shortest: int = 1024
    seed: int = 42

    def run(self) -> Found:
        name = "workload.path="
        path = next(o for o in self.options if o.startswith(name)).removeprefix(name)
        with Path(path).open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        long = [row for row in rows if float(row[0]) > self.shortest]
        order = np.random.RandomState(self.seed).permutation(len(long))[:REQUESTS]
        with tempfile.TemporaryDirectory() as folder:
            chosen = Path(folder) / "requests.csv"
            with chosen.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([head, *(long[i] for i in order)])
            return Compare((*self.options, f"{name}{chosen}")).run()


def largest_batches(runs: Runs) -> dict[str, float]:
    """Return the largest batches by page size, and their ratios."""
    rows = {}
    for model in MODELS:
        small, large = (
            runs.get(f"{model}, {size}", "virtual", "peak_batch") for size in ("64 KiB", "2 MiB")
        )
        rows |= {
            f"{model}, 64 KiB over 2 MiB": small / large,
            f"{model}, 2 MiB": large,
            f"{model}, 64 KiB": small,
        }
    return rows


@dataclass(frozen=True)
class Spikes(Compare):
    """A comparison, with the decode steps that take longer than their neighbours."""

    def more(self, log: RunLog) -> dict[str, float]:
        """Return how many spikes there are and by how much they are longer, median, ms."""
        line = log.timeline
        decodes = line["batched_tokens"] == line["batch"]
        ms = 1000 * (line["time_s"] - line["start_s"])[decodes]
        half = NEIGHBOURS // 2
        windows = np.lib.stride_tricks.sliding_window_view(ms, NEIGHBOURS)
        above = ms[half : len(ms) - half] - np.median(windows, axis=1)
        spikes = above[above > SPIKE_MS]
        return {
            "spikes": float(len(spikes)),
            "spike_ms": float(np.median(spikes)) if len(spikes) else 0.0,
        }


def overlap(runs: Runs) -> dict[str, float]:
    """Return what mapping adds to a decode step, ms, with and without the background thread."""
    rows = {}
    for model in MODELS:
        alone = runs.get(f"{model} background=false", "virtual", "spike_ms")
        beside = runs.get(f"{model} background=true", "virtual", "spike_ms")
        rows[f"{model}, spike of a decode step without overlap, median"] = alone
        rows[f"{model}, the same with overlap"] = beside
    # Four requests reach the end of their page-groups in the same steps.
    spike = rows["Yi-34B, spike of a decode step without overlap, median"]
    rows["Yi-34B, one page-group of 2 MiB mapped in a step"] = spike / 4
    return rows


@dataclass(frozen=True)
class MapShare:
    """The largest share of a prefill that mapping its prompt takes with pages of 64 KiB."""

    options: tuple[str, ...]

    def run(self) -> Found:
        prepared = prepared_for(self.options)
        config, shape = prepared.config, prepared.geometry
        cost = make_cost(config.model, config.hardware, config.cost_model, config.software)
        tokens = page_group_tokens(shape, PAGE_BYTES["64KiB"], "per_layer")
        shares = {}
        for prompt in PROMPTS:
            work = Work(prefill_new=np.array([prompt]), prefill_past=np.array([0]), sampled=1)
            calls = 2 * shape.layers * -(-prompt // tokens)
            maps_s = calls * config.cost_model.map_us["64KiB"] * 1e-6
            shares[prompt] = maps_s / (maps_s + cost.step_s(work))
        best = max(shares, key=shares.__getitem__)
        return {"share": {"largest": shares[best], "prompt": float(best)}}


def deferred(runs: Runs) -> dict[str, float]:
    """Return the largest share of mapping, percent."""
    return {
        f"{model}, pages of 64 KiB": 100 * runs.get(model, "share", "largest") for model in MODELS
    }


def offline(runs: Runs) -> dict[str, float]:
    """Return ratios of requests/s."""
    rows = {}
    for model in MODELS:
        for setup, row in (
            (model, f"{model}, virtual over paged, requests/s"),
            (f"{model}, level", f"{model}, the same with kernels that are level"),
        ):
            virtual, paged = (runs.get(setup, a, "requests_per_s") for a in ("virtual", "paged"))
            rows[row] = virtual / paged
    return rows
