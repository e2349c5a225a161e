"""Rewrites tracked baselines from a run of the suite, and prints what changed.

    python -m harness.compare.baseline SUITE_DIR results/baselines

A baseline is a summary with nothing in it that changes from machine to machine: exact metrics only,
to twelve digits, and of the environment only the versions that the numbers could depend on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.command.frame import OK, run_command
from harness.compare.judge import compare_cases
from harness.compare.load import Case, CompareError, Number, load_cases
from harness.compare.render import as_table
from harness.results.atomic import write_text
from harness.results.metrics import BY_NAME
from harness.results.options import FREE_OPTIONS
from harness.results.writer import SCHEMA_VERSION

DIGITS = 12
#: changes no result, and stands in the baselines all the same since before that was a rule
KEPT_OPTION = "engine.skip_ahead"


def baseline_text(case: Case) -> str:
    """The content of a case's baseline file."""
    summary = {
        "schema_version": SCHEMA_VERSION,
        "config": _without_free(case.config),
        "environment": _versions(case.environments[0]),
        "rows": [
            {
                "allocator": name,
                "status": row.status,
                "reason": row.reason,
                "metrics": {
                    metric: _rounded(values[0])
                    for metric, values in row.metrics.items()
                    if metric in BY_NAME and BY_NAME[metric].deterministic
                },
            }
            for name, row in case.rows.items()
        ],
    }
    return json.dumps(summary, indent=1, allow_nan=False) + "\n"


def rewrite(suite_dir: Path, baselines_dir: Path) -> str:
    """Replace the baselines by the suite's results; return the text of what changed."""
    cases = load_cases([suite_dir])
    held = sorted(baselines_dir.glob("*.json"))
    before = load_cases([baselines_dir]) if held else []
    text = as_table(compare_cases(before, cases, measured=False))
    baselines_dir.mkdir(parents=True, exist_ok=True)
    names = {f"{case.name.replace('/', '-')}.json": case for case in cases}
    for name, case in names.items():
        write_text(baselines_dir / name, baseline_text(case))
    for path in held:
        if path.name not in names:
            path.unlink()
    return text + f"{len(names)} baselines in {baselines_dir}\n"


def _without_free(config: dict[str, Any]) -> dict[str, Any]:
    """Texts may be reworded, and loops chosen otherwise, without a new baseline."""
    kept = {name: value for name, value in config.items() if name not in FREE_OPTIONS}
    for option in FREE_OPTIONS:
        group, _, name = option.partition(".")
        if option != KEPT_OPTION and isinstance(kept.get(group), dict):
            kept[group] = {key: value for key, value in kept[group].items() if key != name}
    return kept


def _versions(environment: dict[str, Any]) -> dict[str, Any]:
    packages = environment.get("packages")
    numpy = packages.get("numpy") if isinstance(packages, dict) else None
    return {"python": environment.get("python"), "packages": {"numpy": numpy}}


def _rounded(value: Number) -> Number:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite, print what changed, return the exit status."""
    return run_command(_main, None, arguments)


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.compare.baseline")
    parser.add_argument("suite", metavar="SUITE_DIR", help="sweep directory of +experiment=ci")
    parser.add_argument("baselines", metavar="BASELINES_DIR")
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(rewrite(Path(options.suite), Path(options.baselines)))
    except OSError as error:
        raise CompareError(f"{options.baselines}: cannot be written: {error.strerror}") from error
    return OK


if __name__ == "__main__":
    sys.exit(main())
