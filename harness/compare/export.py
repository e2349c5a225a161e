"""Results in formats that other tools read: github-action-benchmark and Bencher.

github-action-benchmark takes a list of `{name, unit, value, range?, extra?}` and is told by its
`tool` option whether smaller or bigger is better, hence two files. Bencher's metric format is
`{benchmark: {measure: {value, lower_value?, upper_value?}}}`.

    python -m harness.compare.export RUN [RUN ...] --out DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness.command.frame import OK, run_command
from harness.compare.load import Case, CompareError, Number, load_cases
from harness.results.atomic import write_text
from harness.results.metrics import METRICS, Metric

SMALLER, BIGGER, BENCHER = "smaller_is_better.json", "bigger_is_better.json", "bencher.json"
#: Bencher's limits, in characters
BENCHMARK_CHARACTERS = 1024


def github_action_benchmark(cases: list[Case], direction: str) -> list[dict[str, Any]]:
    """Entries for `customSmallerIsBetter` (direction lower) or `customBiggerIsBetter` (higher)."""
    entries = []
    for case, allocator, metric, values in _values(cases):
        if metric.direction != direction:
            continue
        entry: dict[str, Any] = {
            "name": f"{case.name}/{allocator}/{metric.name}",
            "unit": metric.unit,
            "value": median(values),
            "extra": metric.definition,
        }
        if max(values) > min(values):
            entry["range"] = f"± {(max(values) - min(values)) / 2:.4g}"
        entries.append(entry)
    return entries


def bencher_metric_format(cases: list[Case]) -> dict[str, dict[str, dict[str, float]]]:
    """Bencher's metric format; lower and upper value are the extremes of the repeats."""
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for case, allocator, metric, values in _values(cases):
        measure: dict[str, float] = {"value": median(values)}
        if max(values) > min(values):
            measure.update(lower_value=min(values), upper_value=max(values))
        name = f"{case.name}/{allocator}"[:BENCHMARK_CHARACTERS]
        benchmarks.setdefault(name, {})[metric.name] = measure
    return benchmarks


def write_exports(cases: list[Case], out_dir: Path) -> list[Path]:
    """Write the three files and return their paths."""
    contents = {
        SMALLER: github_action_benchmark(cases, "lower"),
        BIGGER: github_action_benchmark(cases, "higher"),
        BENCHER: bencher_metric_format(cases),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_text(out_dir / name, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return [out_dir / name for name in contents]


def _values(cases: list[Case]) -> Iterator[tuple[Case, str, Metric, list[float | int]]]:
    for case in cases:
        for allocator, row in case.rows.items():
            if not row.ok:
                continue
            for metric in METRICS:
                samples: list[Number] = row.metrics.get(metric.name, [])
                values = [value for value in samples if value is not None]
                if values:
                    yield case, allocator, metric, values


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the exports; return the exit status."""
    return run_command(_main, None, arguments)


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.compare.export")
    parser.add_argument("run", metavar="RUN", nargs="+", help="run directories, sweeps, baselines")
    parser.add_argument("--out", metavar="DIR", required=True)
    options = parser.parse_args(arguments)
    try:
        paths = write_exports(load_cases(options.run), Path(options.out))
    except OSError as error:
        raise CompareError(f"{options.out}: cannot be written: {error.strerror}") from error
    print("\n".join(str(path) for path in paths))
    return OK


if __name__ == "__main__":
    sys.exit(main())
