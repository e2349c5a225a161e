"""Serves what a published run served, with the harness and a profile of software."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant
from harness.cost import SoftwareSpec
from harness.results import RunLog
from tests.places import ROOT
from workloads.requests import RequestTable

#: sigmas of ShareGPT's stand-in, as in conf/workload/sharegpt.yaml, and the bound on both lengths
PROMPT_SIGMA, OUTPUT_SIGMA, LONGEST = 1.2, 1.0, 1024
#: requests that a check serves at most: at a constant rate the rest would be more of the same
MOST_REQUESTS = 600
#: prompts that the runs at a constant rate sent in turn
PROMPTS = 100
BLOCK = 16
#: SGLang computes prompts in steps of their own, and batches as many as memory holds
MORE = {"sglang": ("engine=continuous", "engine.max_num_seqs=4096")}
#: vLLM's script on ShareGPT, prompt and output in the mean: of a row that says both, for those that
#: say their sum (v2023-820: 478.8) or nothing
SHAREGPT = (217.393, 200.516)
SHAREGPT_SUM = 478.8


#: runs of which the lengths of each request are known
RECORDED = "llmk8s-70b-tp8-"
#: runs of the same client and data set with another seed: of those lengths, scaled to their means
ALIKE = "iog-"
#: what ran first on a server that is served several times the same prompts
FIRST = {RECORDED: "01", ALIKE: "32"}
#: requests of a closed loop whose source does not say how many, for each in flight
ROUNDS = 8


@dataclass(frozen=True)
class Served:
    """What a client of the simulated server would measure: means in ms, and requests/s."""

    ttft_ms: float
    tpot_ms: float
    e2e_ms: float
    requests_per_s: float


def serve(row: dict[str, str], software: SoftwareSpec) -> Served:
    """Serve a row of `servers.csv`; raises AssertionError if the server cannot."""
    options = row["options"].split()
    requests, first = requests_of(row)
    index = "none" if requests.hash_ids is None else "hash"
    prepared = prepare(
        compose("+workload=uniform", "workload.num_requests=2", "allocator=[paged]", "report=none",
                "workload.prompt.high=64", "workload.output.high=64",
                f"allocators.paged.prefix_index={index}", *options, *MORE.get(row["profile"], ()))
    )  # fmt: skip
    prepared.config.software = software
    prepared.requests = requests.limit(prepared.config.max_len, "truncate")
    result, log = run_variant(prepared, "paged")
    assert log is not None, result.reason
    return measured(log, first)


def measured(log: RunLog, skip: int) -> Served:
    """Return the means over all requests but the first `skip`."""
    of = {name: column[skip:] for name, column in log.requests.items() if name != "id"}
    ttft_s = of["first_token_s"] - of["arrival_s"]
    e2e_s = of["finish_s"] - of["arrival_s"]
    tpot_s = (e2e_s - ttft_s) / np.maximum(1, of["output_tokens"] - 1)
    several = of["output_tokens"] > 1
    length_s = float(of["finish_s"].max() - of["arrival_s"].min())
    means = (1e3 * float(x.mean()) for x in (ttft_s, tpot_s[several], e2e_s))
    return Served(*means, requests_per_s=len(e2e_s) / length_s)


def lengths_of(row: dict[str, str]) -> tuple[float, float]:
    """Return the mean prompt and output; of ShareGPT's usual sample where the row says none."""
    if row["prompt_tokens_mean"]:
        return float(row["prompt_tokens_mean"]), float(row["output_tokens_mean"])
    prompt, output = (part / sum(SHAREGPT) * SHAREGPT_SUM for part in SHAREGPT)
    return prompt, output


def requests_of(row: dict[str, str]) -> tuple[RequestTable, int]:
    """Return requests of the row's lengths and times, or such as have its means.

    Also how many of them only fill the prefix cache: what the server had served before.
    """
    closed = int(row["concurrency"]) if row["arrival"] == "closed loop" else None
    n = int(row["requests"] or ROUNDS * (closed or 0))
    if row["arrival"] == "constant":
        n = min(n, MOST_REQUESTS)
    draw = np.random.default_rng(0)
    prompt, output = lengths_of(row)
    if row["id"].startswith(RECORDED):
        prompts, outputs = recorded_lengths(row["id"].removeprefix(RECORDED))
    elif row["id"].startswith(ALIKE):
        prompts, outputs = map(_scaled, recorded_lengths("01"), (prompt, output))
    elif row["lengths"].startswith("by rule"):
        prompts, outputs = (np.resize(lengths, n) for lengths in ruled_lengths())
    elif row["lengths"].startswith(("output fixed", "fixed")) or row["id"].startswith("infsim"):
        prompts, outputs = np.full(n, round(prompt)), np.full(n, round(output))
    elif row["lengths"].startswith("uniform"):
        prompts = draw.integers(1, 2 * round(prompt), n)
        outputs = draw.integers(1, 2 * round(output), n)
    else:
        prompts = _lognormal(draw, prompt, PROMPT_SIGMA, n)
        outputs = _lognormal(draw, output, OUTPUT_SIGMA, n)
    arrivals_s = _arrivals_s(row, n)
    seen = _seen(row, n)
    if not seen:
        return RequestTable(arrivals_s, prompts, outputs, concurrency=closed), 0
    # Each of the prompts once, a second apart, and then the run.
    times_s = np.concatenate([np.arange(seen), arrivals_s + 2 * seen])
    which = np.concatenate([np.arange(seen), np.arange(n) % seen])
    starts = np.cumsum(-(-prompts[:seen] // BLOCK))
    hash_ids = [starts[i] - np.arange(-(-prompts[i] // BLOCK))[::-1] for i in which.tolist()]
    table = RequestTable(
        times_s, prompts[which], outputs[which], hash_ids=hash_ids, hash_block_tokens=BLOCK
    )
    return table, seen


def _seen(row: dict[str, str], n: int) -> int:
    """Return how many prompts the server had seen before (results/published/README.md)."""
    if row["id"].startswith("infsim"):
        return PROMPTS
    again = (row["id"].startswith(s) and not row["id"].endswith(run) for s, run in FIRST.items())
    return n if any(again) else 0


def recorded_lengths(run: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompt and output of each request of one of the RECORDED runs, int64 [200]."""
    lengths = pd.read_csv(ROOT / "results" / "published" / "llmk8s_lengths.csv")
    return lengths["prompt_tokens"].to_numpy(), lengths[f"output_tokens_{run}"].to_numpy()


def _scaled(lengths: np.ndarray, mean: float) -> np.ndarray:
    return np.maximum(1, np.round(lengths * (mean / lengths.mean()))).astype(np.int64)


def ruled_lengths() -> tuple[np.ndarray, np.ndarray]:
    """Return the 160 prompts and outputs of systalyze/vllm-benchmarks, int64 [160], in order."""
    columns = []
    for middle, ninth, most in ((3500, 10_000, 11_200), (200, 400, 800)):
        normal = NormalDist(np.log(middle), np.log(ninth / middle) / NormalDist().inv_cdf(0.9))
        even = [np.exp(normal.inv_cdf((i + 0.5) / 160)) for i in range(160)]
        lengths = [min(most, round(length)) for length in even]
        # Two neighbours each are set to what the percentiles are to be.
        lengths[79:81], lengths[143:145] = [middle] * 2, [ninth] * 2
        columns.append(lengths)
    random.Random(43).shuffle(columns[1])
    pairs = list(zip(*columns, strict=True))
    random.Random(42).shuffle(pairs)
    prompts, outputs = np.array(pairs).T
    return prompts, outputs


def _arrivals_s(row: dict[str, str], n: int) -> np.ndarray:
    if not row["rate_per_s"]:
        return np.zeros(n)
    rate = float(row["rate_per_s"])
    if row["arrival"] == "constant":
        return np.arange(n) / rate
    # vLLM's client draws so, after seeding; SGLang's draws other things before.
    gaps = np.random.RandomState(42 if "(seed 42)" in row["arrival"] else 0).gamma(
        1.0, 1.0 / rate, n
    )
    return np.concatenate([[0.0], np.cumsum(gaps)[:-1]])


def _lognormal(draw: np.random.Generator, mean: float, sigma: float, n: int) -> np.ndarray:
    """Return n lengths in 1..LONGEST whose mean is `mean` after clipping, within a token."""
    normal = draw.standard_normal(n)
    low, high = 0.0, np.log(LONGEST)
    for _ in range(60):
        middle = (low + high) / 2
        lengths = np.clip(np.exp(middle + sigma * normal), 1, LONGEST).round()
        low, high = (middle, high) if lengths.mean() < mean else (low, middle)
    return lengths.astype(np.int64)
