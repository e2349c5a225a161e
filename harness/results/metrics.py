"""Every metric, once: name, symbol, unit, direction, whether it repeats, and its definition.

`summarize` orders its answer by this table, the screen marks the best by `direction`, comparisons
ask `deterministic`, and `docs/metrics.md` is this module printed (`metrics_page`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Metric:
    """direction: which way is better. deterministic: equal in two runs with one seed."""

    name: str
    symbol: str
    unit: str
    direction: Direction
    deterministic: bool
    definition: str


SYMBOLS: tuple[tuple[str, str], ...] = (
    ("C", "capacity of the KV pool, bytes"),
    ("i = 1..N", "steps of the engine; step i runs from s_i to t_i and lasts d_i = t_i - s_i"),
    ("G", "seconds outside every step, in which the engine waits for an arrival (gaps)"),
    ("T", "length of the run, from time 0 to t_N; T = Σ d_i + G"),
    ("W", "the saturated steps: those in which a request waits for memory it cannot get"),
    ("M_c,i", "bytes of memory category c during step i; the seven categories sum to C"),
    ("A", "cached bytes integrated over the gaps, byte-seconds; the rest of a gap's pool is idle"),
    ("b_i", "requests in the batch of step i; a sequence group counts as one"),
    ("P_i, L_i", "blocks in use in step i, and the blocks it would take without sharing"),
    ("l_i", "what limited step i: why the next request in the queue was not in it; one of six"),
    ("x_p,i", "exposed seconds of part p of step i; the seven parts sum to d_i"),
    ("F", "requests that finished"),
    (
        "a_r, f_r, e_r",
        "when the client of request r sends it, sees its first output token, and sees its end, "
        "seconds; the scheduler sees it software.request_us after a_r, and a token is sampled "
        "software.response_us before the client sees it",
    ),
    ("p_r, o_r, n_r", "its prompt tokens, output tokens of one sequence, and sequences"),
    ("t_k", "the end of the k-th step in which a request samples, seconds"),
    ("S", "requests that finish within every limit of `slo`, see below"),
)

CATEGORY_DEFINITIONS: tuple[tuple[str, Direction, str], ...] = (
    ("token", "higher", "slots holding KV that a live sequence will read; a shared slot once"),
    ("reserved", "lower", "held by a running sequence, and used by it later"),
    ("internal", "lower", "held by a running sequence, and never used"),
    (
        "expired",
        "lower",
        "held, and read by no token of this step or a later one: behind a window, "
        "or a replaced state; only where layers keep different KV",
    ),
    ("external", "lower", "free, yet a request waits for memory it cannot get"),
    ("cached", "none", "blocks and page-groups kept for reuse, held by no sequence"),
    ("idle", "none", "free, and nobody waits for memory"),
)

LIMIT_DEFINITIONS: tuple[tuple[str, str], ...] = (
    ("nobody", "nobody waited: all who had come were let in; the gaps count here too"),
    ("memory", "the allocator refused the head of the queue (its watermark and "
     "`engine.expected_output_tokens` included)"),
    ("sequences", "the head of the queue found no free row of `engine.max_num_seqs`"),
    ("tokens", "the step's token budget, `engine.max_num_batched_tokens`, was used up"),
    ("preemption", "a step that preempts admits nobody; with `engine=orca` whoever was swapped out "
     "and is behind one that is computed again waits for the next step"),
    ("policy", "`engine=static` does not ask the queue until its batch has ended"),
)  # fmt: skip
PART_DEFINITIONS: tuple[tuple[str, str], ...] = (
    ("linear", "matrix products of all layers and of the output head, and the small kernels "
     "between them: norms, residual adds, rotary, activation"),
    ("attention", "attention of prompts and of decodes (with `cost_model=calibrated` also the "
     "writing of keys and values)"),
    ("all_reduce", "adding up what the GPUs of a tensor-parallel server have computed"),
    ("software", "all else in which the step computes: scheduling, inputs and block tables, "
     "launching, sampling; with `software.overlapped` only the block tables' way to the GPU and "
     "what the CPU takes longer than the GPU"),
    ("copies", "copies inside the pool, all before the step"),
    ("swaps", "the calls of swaps, and of the bytes what the step's computing does not hide"),
    ("maps", "mapping and unmapping of page-groups before the step, and what a background thread "
     "takes longer than the step computes"),
)  # fmt: skip

LATENCIES: tuple[tuple[str, str, str], ...] = (
    ("ttft", "f_r - a_r", "time to first token, over F"),
    (
        "tpot",
        "(e_r - f_r) / (o_r - 1)",
        "time per output token after the first, over those of F with o_r > 1",
    ),
    (
        "itl",
        "t_k - t_k-1",
        "inter-token latency: from one step in which a request samples to the next, over all "
        "such gaps of all requests",
    ),
    ("e2e", "e_r - a_r", "end-to-end latency, over F"),
)


def _share_metrics() -> list[Metric]:
    metrics = []
    gaps = {"cached": " + A", "idle": " + C·G - A"}
    for name, direction, meaning in CATEGORY_DEFINITIONS:
        symbol = f"(Σ d_i·M_{name},i{gaps.get(name, '')}) / (C·T)"
        text = f"time-weighted share of the pool over the run: {meaning}"
        metrics.append(Metric(f"{name}_share", symbol, "fraction", direction, True, text))
    for name, direction, _ in CATEGORY_DEFINITIONS:
        symbol = f"Σ_W d_i·M_{name},i / (C·Σ_W d_i)"
        text = f"`{name}_share` over the saturated steps only"
        metrics.append(Metric(f"saturated_{name}_share", symbol, "fraction", direction, True, text))
    return metrics


def _time_metrics() -> list[Metric]:
    gaps = {"nobody": " + G"}
    metrics = [
        Metric(
            f"limited_by_{limit}_share",
            f"(Σ_{{l_i={limit}}} d_i{gaps[limit]}) / T"
            if limit in gaps
            else f"Σ_{{l_i={limit}}} d_i / T",
            "fraction",
            "none",
            True,
            f"share of the run in which {meaning}",
        )
        for limit, meaning in LIMIT_DEFINITIONS
    ]
    metrics += [
        Metric(
            f"time_{part}_share",
            f"Σ x_{part},i / T",
            "fraction",
            "none",
            True,
            f"share of the run, as far as no other part hides it: {meaning}",
        )
        for part, meaning in PART_DEFINITIONS
    ]
    text = "share of the run outside every step, in which the engine waits for an arrival"
    return [*metrics, Metric("time_gap_share", "G / T", "fraction", "none", True, text)]


def _latency_metrics() -> list[Metric]:
    return [
        Metric(
            f"{name}_{statistic}_s",
            f"{statistic}({symbol})",
            "s",
            "lower",
            True,
            f"{meaning}: {words}",
        )
        for name, symbol, meaning in LATENCIES
        for statistic, words in _STATISTICS.items()
    ]


_STATISTICS = {
    "mean": "mean",
    "p50": "median",
    "p90": "90th percentile",
    "p99": "99th percentile",
}

METRICS: tuple[Metric, ...] = (
    *_share_metrics(),
    Metric(
        "sharing_saved",
        "1 - Σ d_i·P_i / Σ d_i·L_i",
        "fraction",
        "higher",
        True,
        "blocks that sharing saves, of those needed without it (PagedAttention, Fig. 15)",
    ),
    Metric(
        "mean_batch",
        "Σ d_i·b_i / T",
        "requests",
        "higher",
        True,
        "time-weighted requests in the batch; a gap counts as none",
    ),
    Metric("peak_batch", "max b_i", "requests", "higher", True, "most requests in one batch"),
    Metric(
        "saturated_mean_batch",
        "Σ_W d_i·b_i / Σ_W d_i",
        "requests",
        "higher",
        True,
        "`mean_batch` over the saturated steps only",
    ),
    Metric("requests_per_s", "#F / T", "requests/s", "higher", True, "finished requests a second"),
    Metric(
        "goodput_requests_per_s",
        "#S / T",
        "requests/s",
        "higher",
        True,
        "goodput: good requests a second; undefined without a limit of `slo`",
    ),
    Metric(
        "good_share",
        "#S / N_r",
        "fraction",
        "higher",
        True,
        "good requests, of all N_r requests; undefined without a limit of `slo`",
    ),
    Metric(
        "output_tokens_per_s",
        "Σ_F o_r·n_r / T",
        "tokens/s",
        "higher",
        True,
        "output tokens a second, all sequences of finished requests",
    ),
    Metric(
        "total_tokens_per_s",
        "Σ_F (p_r + o_r·n_r) / T",
        "tokens/s",
        "higher",
        True,
        "the same with each prompt counted once",
    ),
    *_latency_metrics(),
    Metric(
        "normalized_latency_mean_s",
        "mean((e_r - a_r) / o_r)",
        "s/token",
        "lower",
        True,
        "end-to-end latency a token of output, over those of F with o_r > 0",
    ),
    *_time_metrics(),
    Metric("preemptions", "-", "count", "lower", True, "requests sent back to the queue"),
    Metric("hit_tokens", "-", "tokens", "higher", True, "prompt tokens found in the prefix cache"),
    Metric(
        "hit_bytes",
        "hit_tokens · bytes of one token's KV",
        "bytes",
        "higher",
        True,
        "bytes of KV that prefix hits did not have to compute or store again",
    ),
    Metric(
        "prefix_hit_rate",
        "hit_tokens / Σ q",
        "fraction",
        "higher",
        True,
        "share of the tokens of all admissions that the prefix cache had; an admission has q of "
        "them, the prompt and what was generated before a preemption; undefined without an index",
    ),
    Metric(
        "computed_tokens",
        "-",
        "tokens",
        "lower",
        True,
        "tokens computed: prompts less what was hit, output fed back, and what was computed again",
    ),
    Metric(
        "wasted_tokens",
        "-",
        "tokens",
        "lower",
        True,
        "tokens computed again: what a preempted request held, less what it hit when it returned",
    ),
    Metric(
        "evictions",
        "-",
        "blocks",
        "lower",
        True,
        "cached blocks given up to hold something else; undefined without an index",
    ),
    Metric(
        "copied_bytes",
        "-",
        "bytes",
        "lower",
        True,
        "KV bytes moved inside the pool: copy-on-write, forks, growth by copying",
    ),
    Metric(
        "swapped_bytes",
        "-",
        "bytes",
        "lower",
        True,
        "KV bytes moved to host memory and back by preemptions",
    ),
    Metric(
        "metadata_bytes_peak",
        "-",
        "bytes",
        "lower",
        True,
        "largest size of the block tables and page tables, which the pool does not hold",
    ),
    Metric(
        "map_calls",
        "-",
        "calls",
        "lower",
        True,
        "page-groups mapped; undefined where nothing is mapped",
    ),
    Metric(
        "unmap_calls",
        "-",
        "calls",
        "lower",
        True,
        "page-groups unmapped; undefined where nothing is mapped",
    ),
    Metric(
        "map_s", "-", "s", "lower", True, "time of maps, unmaps and conversions; may be undefined"
    ),
    Metric(
        "allocator_us_per_step",
        "-",
        "us",
        "lower",
        False,
        "host time inside the allocator, measured step by step alone, divided by the steps",
    ),
    Metric(
        "resident_peak_bytes",
        "-",
        "bytes",
        "lower",
        False,
        "most memory that the system said was resident for KV; of real runs only",
    ),
    Metric("finished_requests", "#F", "requests", "higher", True, "requests that finished"),
    Metric("steps", "N", "steps", "none", True, "iterations of the engine"),
    Metric("makespan_s", "T", "s", "lower", True, "end of the last step"),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
