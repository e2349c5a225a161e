"""What limits a verdict, in sentences that stand beside it."""

from __future__ import annotations

from harness.report.collection import Collection, Run
from harness.report.numbers import percent
from harness.report.ranking import listed
from harness.results.runlog import ResultRow

#: of the pool: a cache that holds less while requests wait is next to none
_SMALL_CACHE = 0.05
#: preemptions, of the finished requests, from which on returns make up much of what is hit
_MANY_PREEMPTIONS = 0.1
#: tokens computed again, of those hit: below it few of the hits can be of requests that return
_MUCH_WASTED = 0.1
_MOST_NOTES = 4


def caveats(collection: Collection) -> list[str]:
    """The sentences, none where nothing is in doubt; notes of the runs come last."""
    runs = [run for run in collection.runs if run.ok_rows]
    return [
        *_queueing(runs),
        *_small_radix_caches(runs),
        *_hits_of_returns(runs),
        *_notes(runs),
    ]


def _queueing(runs: list[Run]) -> list[str]:
    if not runs or not all(_is_batch(run) for run in runs):
        return []
    if all(row.metrics.get("ttft_p50_s") is None for run in runs for row in run.ok_rows):
        return []
    return [
        "All requests are there from the start, so TTFT is mostly time in the queue; "
        "workload.rate spreads their arrivals."
    ]


def _is_batch(run: Run) -> bool:
    """Whether all requests arrive at time 0: no rate, no closed loop, no times of their own."""
    workload = run.config.get("workload")
    if not isinstance(workload, dict) or "rate" not in workload or workload["rate"] is not None:
        return False
    if workload.get("concurrency") is not None:
        return False
    return workload.get("kind") not in ("trace", "conversation")


def _small_radix_caches(runs: list[Run]) -> list[str]:
    shares = [
        share
        for run, row in _indexed(runs)
        if run.prefix_index(row.allocator) == "radix"
        and (share := row.metrics.get("saturated_cached_share")) is not None
        and share < _SMALL_CACHE
    ]
    if not shares:
        return []
    held = f"only {percent(max(shares))}" if len(shares) == 1 else f"at most {percent(max(shares))}"
    return [
        f"Requests waited for memory, so the prefix cache held {held} of the pool. "
        "prefix_index=radix gives up whole leaves: a few blocks asked for can empty such a "
        "cache, where hash gives up single blocks."
    ]


def _hits_of_returns(runs: list[Run]) -> list[str]:
    titles = [run.title(row.allocator) for run, row in _indexed(runs) if _many_returns(row.metrics)]
    if not titles:
        return []
    names = listed(list(dict.fromkeys(titles)))
    return [
        f"{names}: most hits under preemption are requests finding their own blocks when they "
        "return. This hit rate says how much lost work was saved, not how well prompts share; "
        "fewer preemptions (allocators.paged.watermark) may serve better at a lower hit rate."
    ]


def _many_returns(metrics: dict[str, float | int | None]) -> bool:
    preemptions, finished, hit, wasted = (
        metrics.get(name) or 0
        for name in ("preemptions", "finished_requests", "hit_tokens", "wasted_tokens")
    )
    return preemptions > _MANY_PREEMPTIONS * finished and 0 < _MUCH_WASTED * hit < wasted


def _indexed(runs: list[Run]) -> list[tuple[Run, ResultRow]]:
    return [(run, row) for run in runs for row in run.ok_rows if run.prefix_index(row.allocator)]


def _notes(runs: list[Run]) -> list[str]:
    """What the runs noted, each note once, and of how many runs it holds."""
    counts: dict[str, int] = {}
    for run in runs:
        notes = run.config.get("notes")
        for note in dict.fromkeys(map(str, notes if isinstance(notes, list) else [])):
            counts[note] = counts.get(note, 0) + 1
    sentences = [
        f"Note: {note}" if count == len(runs) else f"Note on {count} of {len(runs)} runs: {note}"
        for note, count in counts.items()
    ]
    left_out = len(sentences) - _MOST_NOTES
    if left_out > 0:
        notes = "notes stand" if left_out > 1 else "note stands"
        sentences[_MOST_NOTES:] = [f"{left_out} more {notes} with the configuration below."]
    return sentences
