"""A trace of a run that Perfetto and chrome://tracing open: option `harness.trace=chrome`.

One process an allocator. Its tracks: steps with what they computed, counters of the memory by
category, of memory operations and of the batch, and instants that name who is computed and who is
preempted. Times are microseconds on the run's clock. The format is the JSON of Chrome's Trace Event
Format: `X` complete, `C` counter, `i` instant, `M` name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engine.group import Group
from harness.engine.observer import StepView
from harness.results.atomic import replacing

TRACE = "trace.json"
STEPS, EVENTS = 1, 2
#: steps of pure growth are one slice; beyond this many events the rest is left out
MOST_EVENTS = 1_000_000


@dataclass
class TraceRecorder:
    """An observer of one variant; `name_of` gives a request's name from its index."""

    allocator: str
    process: int
    name_of: Callable[[int], str]
    events: list[dict[str, Any]] = field(default_factory=list)
    _busy: bool = False

    def __post_init__(self) -> None:
        self.events += [
            self._name("process_name", 0, self.allocator),
            self._name("thread_name", STEPS, "steps"),
            self._name("thread_name", EVENTS, "admissions and preemptions"),
        ]

    def on_step(self, step: StepView) -> None:
        """Append the events of a step, or of a stretch of steps run in one go."""
        if len(self.events) >= MOST_EVENTS:
            return
        plan, start_us = step.plan, 1e6 * step.start_s
        grants = plan.all_grants
        geometry = step.allocator.geometry
        memory = {
            "copied_bytes": sum(geometry.bytes_moved(grant.copies) for grant in grants),
            "maps": sum(len(grant.maps) for grant in grants),
            "unmaps": sum(len(grant.unmaps) for grant in grants),
        }
        computed = plan.computed_groups
        kind = "prefill" if computed and not len(plan.rows) else "mixed" if computed else "decode"
        self.events.append(
            {
                "name": kind if step.steps == 1 else f"{kind} x{step.steps}",
                "ph": "X",
                "ts": start_us,
                "dur": max(0.0, 1e6 * float(step.ends_s[-1]) - start_us),
                "pid": self.process,
                "tid": STEPS,
                "args": {
                    "first_step": step.first,
                    "steps": step.steps,
                    "requests": len(step.running),
                    "batched_tokens": plan.batched_tokens,
                    "hit_tokens": plan.hit_tokens,
                    **memory,
                },
            }
        )
        for group in computed:
            self._instant("compute", group, start_us)
        for group in plan.preempted:
            self._instant("preempted", group, start_us)
        self._memory(step)
        self._counter("requests in the batch", start_us, {"requests": len(step.running)})
        # A counter keeps its value until told otherwise, so quiet steps need none.
        busy = any(memory.values())
        if busy or self._busy:
            self._counter("memory operations", start_us, memory)
        self._busy = busy

    def _instant(self, what: str, group: Group, start_us: float) -> None:
        self.events.append(
            {
                "name": f"{what} {self.name_of(group.index)}", "ph": "i", "s": "t",
                "ts": start_us, "pid": self.process, "tid": EVENTS,
                "args": {"prompt_tokens": group.prompt_tokens},
            }
        )  # fmt: skip

    def _memory(self, step: StepView) -> None:
        """The memory of the first step and of the last, each from the time at which it starts."""
        starts_s = [step.start_s, *step.ends_s[:-1].tolist()]
        for at in dict.fromkeys((0, step.steps - 1)):
            held = {name: int(values[at]) for name, values in step.category_bytes.items()}
            self._counter("KV memory, bytes", 1e6 * starts_s[at], held)

    def _counter(self, name: str, start_us: float, values: dict[str, int]) -> None:
        self.events.append(
            {
                "name": name,
                "ph": "C",
                "ts": start_us,
                "pid": self.process,
                "tid": 0,
                "args": values,
            }
        )

    def _name(self, kind: str, thread: int, name: str) -> dict[str, Any]:
        return {
            "name": kind, "ph": "M", "ts": 0, "pid": self.process, "tid": thread,
            "args": {"name": name},
        }  # fmt: skip


def write_trace(run_dir: Path, recorders: Sequence[TraceRecorder]) -> Path:
    """Write `trace.json`, one event a line, and return its path."""
    path = run_dir / TRACE
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        between = ""
        for recorder in recorders:
            for event in recorder.events:
                file.write(between + json.dumps(event, allow_nan=False, separators=(",", ":")))
                between = ",\n"
        file.write("\n]}\n")
    return path
