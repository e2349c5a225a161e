"""Runs comparisons in this process, without a run directory."""

import os
from pathlib import Path

import pytest

from harness.run import compose, prepare
from harness.run.variant import run_variant

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data():
    root = Path(os.environ.get("KV_HARNESS_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not root.is_dir():
        pytest.skip("the public traces are not at hand; set KV_HARNESS_SHARED")
    return root


@pytest.fixture(scope="session")
def compare():
    """A function from overrides to {allocator: metrics} and {allocator: log}."""

    def run(*overrides):
        prepared = prepare(compose(*overrides))
        metrics, logs = {}, {}
        for name in prepared.config.allocators:
            row, logs[name] = run_variant(prepared, name)
            assert row.status == "ok", f"{name}: {row.reason}"
            metrics[name] = row.metrics
        return metrics, logs

    return run
