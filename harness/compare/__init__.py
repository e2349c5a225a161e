"""Regression tracking: is this run worse than that one, and can the samples say so?

    python -m harness.compare BASELINE CURRENT [CURRENT ...]    compare; exit status 0, 1 or 2
    python -m harness.compare.baseline SUITE results/baselines  rewrite tracked baselines
    python -m harness.compare.export RUN --out DIR              files that other tools read

`docs/ci.md` says what is compared, and how.
"""

from harness.compare.judge import compare_cases
from harness.compare.judgement import Finding, Judgement
from harness.compare.load import Case, CompareError, Samples, load_cases
from harness.compare.tolerance import Tolerances

__all__ = [
    "Case",
    "CompareError",
    "Finding",
    "Judgement",
    "Samples",
    "Tolerances",
    "compare_cases",
    "load_cases",
]
