"""`docs/metrics.md`: the table of metrics printed, with what it takes to read it.

python -m harness.results.metrics_page
"""

from __future__ import annotations

from harness.results.metrics import (
    CATEGORY_DEFINITIONS,
    LIMIT_DEFINITIONS,
    METRICS,
    PART_DEFINITIONS,
    SYMBOLS,
    Metric,
)

#: gaps between tokens and limits, in lines of the page
TOKENS_TEXT = (
    "## Token gaps and limits",
    "",
    "A token gap, not one of those of G, runs from one token of a request to the next, whatever",
    "lay between: prompts of others, a preemption, time in host memory. It is measured as a",
    "streaming client sees it and as `vllm bench serve` counts it: a step that gives a request",
    "tokens is one chunk, and from chunk to chunk is one gap. So several tokens of speculative",
    "decoding make one gap, and so do the sequences of one request, which advance in the same",
    "steps. Mean and percentiles are over the gaps of all requests together, not over requests;",
    "percentiles are `numpy.percentile` with its linear method.",
    "",
    "They are exact up to 1,048,576 different values, each kept once with its count. Beyond that",
    "every value is rounded to 13 significant bits, and mean and percentiles are off by at most",
    "2^-13, 0.012 %, of themselves.",
    "",
    "`itl_max_s` of `requests.parquet` is a request's longest gap, missing where it has one token.",
    "",
    "A request is good if it has finished and",
    "",
    "| option | holds |",
    "|---|---|",
    "| `slo.ttft_s` | `f_r - a_r` |",
    "| `slo.itl_s` | its longest gap; with one token it has none |",
    "| `slo.tpot_s` | `(e_r - f_r) / (o_r - 1)`; 0 with one token |",
    "| `slo.e2e_s` | `e_r - a_r` |",
    "",
    "is at most the limit, for each that is set. `ttft`, `tpot` and `e2e` are those of `--goodput`",
    "of `vllm bench serve` (`ttft`, `tpot`, `e2el`, there in ms); `itl` it does not have.",
)

#: what `timeline.parquet` holds, in lines of the page
TIMELINE_TEXT = (
    "## The timeline",
    "",
    "`timeline.parquet` has a row for each step of a variant of at most 100,000 steps, or of any",
    "number with `timeline=full`. A longer one is in bins: a row stands for `w` steps in a row,",
    "the last one for those that are left. Nobody knows the number of steps beforehand, so `w`",
    "starts at 1 and doubles, pairs of bins becoming one, whenever there would be more than 16,384",
    "bins. Metrics never come from bins: they are sums over all steps.",
    "",
    "If any variant of a file is in bins the file has the columns of bins, and a step that is not",
    "in one is a bin by itself, so that one query serves all rows.",
    "",
    "| column | of a step | of a bin |",
    "|---|---|---|",
    "| `step` | its number, from 0 | that of its first step |",
    "| `start_s`, `time_s` | when it starts, and when it ends | when its first step starts, and "
    "its last one ends; gaps between them lie within |",
    "| `running`, `waiting`, `batch`, `blocks_in_use`, `logical_blocks`, `metadata_bytes` | the "
    "number | the mean over its steps, weighted by the seconds that they take |",
    "| `token_bytes` ... `idle_bytes` | the bytes of a category | the same mean, in whole bytes: "
    "rounded so that all sum to the capacity |",
    "| `saturated`, `limited_by_nobody`, `limited_by_memory`, `limited_by_sequences`, "
    "`limited_by_tokens`, `limited_by_preemption`, `limited_by_policy` | true or false | the share "
    "of `busy_s` in which it is true |",
    "| `batched_tokens`, `preemptions`, `hit_tokens`, `copied_bytes` | how many in this step | the "
    "sum over its steps |",
    "| `linear_s`, `attention_s`, `all_reduce_s`, `software_s`, `copies_s`, `swaps_s`, `maps_s` | "
    "the exposed seconds of a part; null where nobody can tell | the sum over its steps |",
    "| `steps` | - | how many steps it stands for |",
    "| `busy_s` | -, that is `time_s - start_s` | the seconds that its steps take, without gaps |",
    "| `NAME_min`, `NAME_max` | - | the least and the most of any of its steps, of all numbers "
    "above but those that are true or false, and seconds |",
    "",
    "So `sum(token_bytes * busy_s) / sum(busy_s)` is a time-weighted mean and `sum(preemptions)` a",
    "total in either kind. Charts of memory over time, in figures and reports, read the means.",
    "Comparisons and baselines read `summary.json` alone; replays and published figures keep every",
    "step in memory and read no file.",
)


def render_markdown() -> str:
    """The text of `docs/metrics.md`: symbols first, then the table."""
    lines = [
        "# Metrics",
        "",
        "<!-- Printed by `python -m harness.results.metrics_page`; edit that or `metrics.py`. -->",
        "",
        "Each variant has one value of each, under `rows[].metrics` of `summary.json`. A metric",
        "that is not defined for a run is `null`: the saturated ones where no request ever waited",
        "for memory, latencies where no request finished. Times are those of the run's clock: a",
        "virtual one in a simulation, the wall's with `executor=model`, where every metric is",
        "measured. Percentiles interpolate linearly between the two nearest values.",
        "",
        "## Symbols",
        "",
        "| symbol | meaning |",
        "|---|---|",
        *(f"| `{symbol}` | {meaning} |" for symbol, meaning in SYMBOLS),
        "",
        "## Memory categories",
        "",
        "At every step the pool is split into seven categories that sum to its capacity, to the",
        "byte.",
        "",
        "| category | meaning |",
        "|---|---|",
        *(f"| {name} | {meaning} |" for name, _, meaning in CATEGORY_DEFINITIONS),
        "",
        "A buddy allocator's round-up counts as external, as the PagedAttention paper counts it.",
        "",
        "## What limits a step",
        "",
        "Where a scheduler stops taking requests from the queue, it says what kept the next one",
        "out. Exactly one holds of each step; what each scheduler asks first is in",
        "[scheduling.md](scheduling.md#what-limits-a-step).",
        "",
        "| limit | the next request was not in the step, because |",
        "|---|---|",
        *(f"| {name} | {meaning} |" for name, meaning in LIMIT_DEFINITIONS),
        "",
        "## What a step's time is made of",
        "",
        "A part counts as far as it is exposed: what runs beside a part that is listed before it",
        "counts only as much as it lasts longer. So the seven sum to the step. A real run",
        "(`executor=model`) measures its steps whole: there they are undefined.",
        "",
        "| part | what it is |",
        "|---|---|",
        *(f"| {name} | {meaning} |" for name, meaning in PART_DEFINITIONS),
        "",
        "## Metrics",
        "",
        "`better` is the direction in which a change is an improvement, `-` where it is neither.",
        "A metric that `repeats` is the same in two runs with one configuration and seed.",
        "",
        "| name | unit | better | repeats | formula | definition |",
        "|---|---|---|---|---|---|",
        *(_table_line(metric) for metric in METRICS),
        "",
        *TOKENS_TEXT,
        "",
        *TIMELINE_TEXT,
        "",
    ]
    return "\n".join(lines)


def _table_line(metric: Metric) -> str:
    better = "-" if metric.direction == "none" else metric.direction
    formula = "-" if metric.symbol == "-" else f"`{metric.symbol}`"
    repeats = "yes" if metric.deterministic else "no, measured"
    cells = (f"`{metric.name}`", metric.unit, better, repeats, formula, metric.definition)
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(render_markdown(), end="")
