"""Runs comparisons in this process, without a run directory."""

import pytest
from hydra import compose, initialize_config_module

import harness.run.config  # noqa: F401 - registers the schema
from harness.run.comparison import prepare, run_variant


@pytest.fixture(scope="session")
def compare():
    """A function from overrides to {allocator: metrics} and {allocator: log}."""

    def run(*overrides):
        with initialize_config_module("conf", version_base="1.3"):
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
        config, requests = prepare(composed)
        metrics, logs = {}, {}
        for name, knobs in config.allocators.items():
            row, logs[name] = run_variant(name, knobs, config, requests)
            assert row.status == "ok", f"{name}: {row.reason}"
            metrics[name] = row.metrics
        return metrics, logs

    return run
