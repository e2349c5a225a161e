"""Run directories from rows and logs, without a run."""

from harness.results import RunWriter


def write_run(run_dir, config, environment, rows, logs=()):
    """Write a whole run at once. A row finds its log by the allocator's name."""
    by_allocator = {log.allocator: log for log in logs}
    with RunWriter(run_dir, config, environment) as writer:
        for row in rows:
            writer.add(row, by_allocator.get(row.allocator))
