"""What a report is about: runs, and the options in which they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.results.runlog import ResultRow

#: reservations that read the output length, which no server knows beforehand
IDEALISED = ("oracle", "pow2")


@dataclass
class Run:
    """One run directory. `options` are those in which it differs from the report's other runs.

    totals: of each allocator what its columns do not tell, see `harness.results.writer`.
    """

    name: str
    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[ResultRow]
    options: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    totals: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def ok_rows(self) -> list[ResultRow]:
        return [row for row in self.rows if row.ok]

    @property
    def known(self) -> bool:
        """Whether its configuration is; a job whose summary cannot be read has none."""
        return bool(self.config)

    @property
    def measured(self) -> bool:
        """Whether a model was really run."""
        executor = self.config.get("executor")
        return isinstance(executor, dict) and executor.get("name") == "model"

    @property
    def _calibration(self) -> str | None:
        """The file of measured times that a simulated run was priced with."""
        cost = self.config.get("cost_model")
        if self.measured or not isinstance(cost, dict) or cost.get("name") != "calibrated":
            return None
        return Path(str(cost.get("file"))).name

    @property
    def clock(self) -> str | None:
        """What the times of the run are: simulated, or measured on what; None if not known."""
        if not self.known:
            return None
        executor = self.config.get("executor")
        if not self.measured:
            table = self._calibration
            return f"simulated with the times in {table}" if table else "simulated"
        settings = (str(executor.get(name)) for name in ("device", "dtype", "backend"))
        return f"measured ({', '.join(settings)} attention)"

    @property
    def machine(self) -> str | None:
        """What the requests were served on: the hardware that was simulated, or this one."""
        if self._calibration:
            return f"the machine of {self._calibration}"
        if not self.measured:
            hardware = self.config.get("hardware")
            return hardware.get("name") if isinstance(hardware, dict) else None
        gpu = self.environment.get("gpu")
        if self.config["executor"].get("device") == "cuda" and isinstance(gpu, dict):
            return gpu.get("name")
        return self.environment.get("cpu_model")

    @property
    def gpus(self) -> int | None:
        """`hardware.count`; None where the run does not say."""
        hardware = self.config.get("hardware")
        count = hardware.get("count") if isinstance(hardware, dict) else None
        return count if isinstance(count, int) and count > 0 else None

    def label(self, headers: dict[str, str]) -> str:
        """`block_size 16, rate 2`: what tells this run from the others; empty for a lone one."""
        return ", ".join(
            str(value) if name in ("run", "times") else f"{headers[name]} {value}"
            for name, value in self.options.items()
            if name in headers
        )

    def idealised(self, allocator: str) -> bool:
        """Whether the allocator reads the output length, which no server knows beforehand."""
        return self._knobs(allocator).get("reservation") in IDEALISED

    def prefix_index(self, allocator: str) -> str | None:
        """`hash` or `radix`; None where the allocator finds no prefixes."""
        index = self._knobs(allocator).get("prefix_index")
        return None if index in (None, "none") else str(index)

    def title(self, allocator: str) -> str:
        """The allocator's name, and its prefix index where neither name nor options say it."""
        index = self.prefix_index(allocator)
        said = f"allocators.{allocator}.prefix_index" in self.options or index == allocator
        return allocator if index is None or said else f"{allocator} ({index})"

    def _knobs(self, allocator: str) -> dict[str, Any]:
        allocators = self.config.get("allocators")
        knobs = allocators.get(allocator) if isinstance(allocators, dict) else None
        return knobs if isinstance(knobs, dict) else {}


@dataclass
class Collection:
    """Everything in one report. `headers` maps each varied option to its short name."""

    runs: list[Run]
    headers: dict[str, str]

    @property
    def single(self) -> bool:
        return len(self.runs) == 1

    @property
    def one_row_each(self) -> bool:
        """Whether runs can only be compared with each other, for each has one allocator."""
        return not self.single and all(len(run.rows) <= 1 for run in self.runs)
