"""Requests for a run: length distributions, arrivals, and public trace formats. NumPy only."""

from workloads.build import build
from workloads.errors import WorkloadError
from workloads.formats import FORMATS, read
from workloads.requests import RequestTable, unique_ids
from workloads.spec import LengthSpec, WorkloadSpec

__all__ = [
    "FORMATS",
    "LengthSpec",
    "RequestTable",
    "WorkloadError",
    "WorkloadSpec",
    "build",
    "read",
    "unique_ids",
]
