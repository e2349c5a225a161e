"""Runs comparisons in this process, without a run directory."""

import pytest

from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant


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
