"""What is commonly said of paging, in numbers: where it holds, by how much, and where not."""

from __future__ import annotations

from dataclasses import dataclass

from harness.published.experiment import Runs
from harness.published.pagedattention import ORCA
from harness.published.tasks import Compare
from harness.results import RunLog

MAX = "contiguous_max"


@dataclass(frozen=True)
class WithTables(Compare):
    """A comparison, with the share of the pool that block tables take besides."""

    def more(self, log: RunLog) -> dict[str, float]:
        """Return the most bytes of tables over the pool's, percent."""
        most = float(log.timeline["metadata_bytes"].max(initial=0))
        return {"tables_percent": 100 * most / log.capacity_bytes}


def claims(runs: Runs) -> dict[str, float]:
    """Return the numbers of each claim, the set-up first in a row's name."""
    rows = {}
    for system, allocator in ORCA.items():
        rows[f"chat, waste of {system}"] = _waste(runs, "chat", allocator)
    rows["instructions, waste of Orca (Oracle)"] = _waste(runs, "instructions", "contiguous_oracle")
    rows["full length, waste of Orca (Max)"] = _waste(runs, "full length", MAX)
    for setup in ("chat", "instructions", "full length"):
        rows[f"{setup}, waste of vLLM"] = _waste(runs, setup, "paged")
    rows["chat, waste of vLLM, block 256"] = _waste(runs, "chat, block 256", "paged")

    for setup, systems in (
        ("chat", ("Orca (Max)", "Orca (Oracle)")),
        ("instructions", ("Orca (Max)",)),
        ("full length", ("Orca (Max)",)),
    ):
        for system in systems:
            over, place = ORCA[system], f"{setup}, over {system}"
            rows[f"{place}, requests at once"] = _ratio(runs, setup, "saturated_mean_batch", over)
            rows[f"{place}, requests/s"] = _ratio(runs, setup, "requests_per_s", over)
    light = "chat, 0.3 req/s"
    rows[f"{light}, over Orca (Max), requests at once"] = _ratio(runs, light, "mean_batch", MAX)

    for limit in (32768, 8192, 4096):
        setup = f"documents, limit {limit}"
        rate = _ratio(runs, setup, "requests_per_s", MAX)
        rows[f"{setup}, requests/s over a reservation"] = rate
        batch = _ratio(runs, setup, "saturated_mean_batch", MAX)
        rows[f"{setup}, requests at once over a reservation"] = batch
    rows["one request, time over a reservation"] = _ratio(runs, "one request", "e2e_mean_s", MAX)
    rows["chat, block tables, share of the pool"] = runs.get("chat", "paged", "tables_percent")
    return rows


def _waste(runs: Runs, setup: str, allocator: str) -> float:
    """Return the share of the pool without live KV while requests wait, percent."""
    return 100 * (1 - runs.get(setup, allocator, "saturated_token_share"))


def _ratio(runs: Runs, setup: str, metric: str, over: str) -> float:
    return runs.get(setup, "paged", metric) / runs.get(setup, over, metric)
