"""Exact counts of one small run for each allocator and mode, so that a rewrite is safe.

    python -m tests.engine.golden

prints and stores the counts that the code now gives; look at the difference before it is kept.
Every step takes one second, so the cost model has no say.
"""

import json
from pathlib import Path

from tests.engine.cases import MODES, allocators, drawn, run

FILE = Path(__file__).parents[1] / "golden" / "engine.json"
RUNS = {
    f"{name} {mode} {policy}": (make, mode, policy)
    for policy in ("continuous", "static", "orca")
    for mode in MODES
    for name, make in allocators().items()
}


def count(make, mode, policy):
    """Serve 40 requests that arrive faster than they are served; sum the run up."""
    requests = drawn(40, "poisson", 0.5, seed=11)
    log = run(make(), requests, MODES[mode], policy=policy)
    t = log.timeline
    waits = t["saturated"]
    held = max(1, int(waits.sum())) * log.capacity_bytes
    return {
        "steps": len(t["step"]),
        "preemptions": int(t["preemptions"].sum()),
        "copied_bytes": int(t["copied_bytes"].sum()),
        "peak_batch": int(t["batch"].max()),
        "saturated_steps": int(waits.sum()),
        "saturated_token_share": round(int(t["token_bytes"][waits].sum()) / held, 6),
    }


def table():
    return {name: count(*case) for name, case in RUNS.items()}


if __name__ == "__main__":
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table().items())
    text = f"{{\n{lines}\n}}\n"
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
    print(text, end="")
