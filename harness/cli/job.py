"""The job that Hydra runs, once or once for each point of a sweep."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.errors import ConfigError
from harness.results import ResultsError
from harness.results.sweep import combine
from harness.run.comparison import INTERRUPTED, run_comparison


def run_hydra() -> int:
    """Run the command line in `sys.argv`; return the exit status of the worst job."""
    statuses: list[int] = []
    sweeps: set[Path] = set()

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
    def job(composed: DictConfig) -> None:
        settings = HydraConfig.get()
        if settings.mode == RunMode.MULTIRUN:
            print(f"\n{' '.join(settings.overrides.task)}")
            sweeps.add(Path(settings.sweep.dir))
        try:
            statuses.append(run_comparison(composed, Path(settings.runtime.output_dir)))
        except (ConfigError, ResultsError) as error:
            print(f"error: {error}", file=sys.stderr)
            statuses.append(2)
        if statuses[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    try:
        job()
    except KeyboardInterrupt:
        for sweep_dir in sweeps:  # what has finished is worth a table too
            with suppress(ResultsError):
                combine(sweep_dir)
        return INTERRUPTED
    return max(statuses, default=0)
