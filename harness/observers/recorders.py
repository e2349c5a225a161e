"""What a run keeps besides its results, if asked: memory maps, a trace, the report."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.engine.observer import Observer
from harness.observers.chrome_trace import TraceRecorder, write_trace
from harness.observers.memory_map import MapRecorder, parse_window, write_maps
from harness.observers.spec import HarnessSpec
from workloads.requests import RequestTable


@dataclass
class Recorders:
    """The observers of a run, variant by variant."""

    spec: HarnessSpec
    requests: RequestTable
    traces: list[TraceRecorder] = field(default_factory=list)
    maps: dict[str, MapRecorder] = field(default_factory=dict)

    def observers(self, allocator: str) -> list[Observer]:
        """New observers for a variant; none unless asked for."""
        chosen: list[Observer] = []
        if self.spec.trace == "chrome":
            process = len(self.traces) + 1
            self.traces.append(TraceRecorder(allocator, process, self.requests.name))
            chosen.append(self.traces[-1])
        if self.spec.memory_map is not None:
            self.maps[allocator] = MapRecorder(*parse_window(self.spec.memory_map))
            chosen.append(self.maps[allocator])
        return chosen

    def write(self, run_dir: Path) -> None:
        """Write what was recorded, if anything was."""
        if self.traces:
            write_trace(run_dir, self.traces)
        found = {name: recorder.map() for name, recorder in self.maps.items()}
        maps = {name: each for name, each in found.items() if each is not None}
        if maps:
            write_maps(run_dir, maps)
        for name in found.keys() - maps.keys():
            print(f"note: {name}: the run ended before harness.memory_map began", file=sys.stderr)


def try_report(run_dir: Path) -> None:
    """Write the report of a run or a sweep; if that fails the results are there all the same."""
    from harness.report import write_report

    try:
        write_report([run_dir], run_dir)
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        text = " ".join(str(error).split())
        print(f"note: no report: {type(error).__name__}: {text}", file=sys.stderr)
