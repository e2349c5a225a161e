"""What a run keeps besides its results, if asked: memory maps, a trace, an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.engine.observer import Observer
from harness.observers.chrome_trace import TraceRecorder, write_trace
from harness.observers.memory_map import MapRecorder, parse_window, write_maps
from harness.observers.spec import HarnessSpec
from harness.observers.vllm_bench import BenchRecorder, Sent
from workloads.requests import RequestTable


@dataclass
class Recorders:
    """The observers of a run, variant by variant."""

    spec: HarnessSpec
    requests: RequestTable
    sent: Sent = field(default_factory=Sent)
    traces: list[TraceRecorder] = field(default_factory=list)
    maps: dict[str, MapRecorder] = field(default_factory=dict)
    exports: list[BenchRecorder] = field(default_factory=list)

    def observers(self, allocator: str) -> list[Observer]:
        """New observers for a variant; none unless asked for."""
        chosen: list[Observer] = []
        if self.spec.trace == "chrome":
            process = len(self.traces) + 1
            self.traces.append(TraceRecorder(allocator, process, self.requests.name))
            chosen.append(self.traces[-1])
        if self.spec.export == "vllm":
            self.exports.append(BenchRecorder(allocator, len(self.requests), self.sent))
            chosen.append(self.exports[-1])
        if self.spec.memory_map is not None:
            self.maps[allocator] = MapRecorder(*parse_window(self.spec.memory_map))
            chosen.append(self.maps[allocator])
        return chosen

    def write(self, run_dir: Path) -> list[str]:
        """Write what was recorded, if anything was; return what could not be, a line each."""
        if self.traces:
            write_trace(run_dir, self.traces)
        for export in self.exports:
            export.write(run_dir)
        found = {name: recorder.map() for name, recorder in self.maps.items()}
        maps = {name: each for name, each in found.items() if each is not None}
        if maps:
            write_maps(run_dir, maps)
        return [
            f"{name}: the run ended before harness.memory_map began"
            for name in found
            if name not in maps
        ]
