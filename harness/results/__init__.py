"""Run directories: what a variant leaves behind, how it is written, and how it is read back."""

from harness.results.claim import Claim
from harness.results.environment import describe_environment
from harness.results.errors import ResultsError
from harness.results.reader import load_summary, summary_rows
from harness.results.runlog import (
    CATEGORIES,
    REQUEST_COLUMNS,
    STATUSES,
    TIMELINE_COLUMNS,
    ResultRow,
    RunLog,
)
from harness.results.writer import SCHEMA_VERSION, RunWriter

__all__ = [
    "CATEGORIES",
    "REQUEST_COLUMNS",
    "SCHEMA_VERSION",
    "STATUSES",
    "TIMELINE_COLUMNS",
    "Claim",
    "ResultRow",
    "ResultsError",
    "RunLog",
    "RunWriter",
    "describe_environment",
    "load_summary",
    "summary_rows",
]
