"""Exact counts of one fixed schedule for each allocator, so that a rewrite is safe.

    python -m tests.allocators.golden

prints and stores the counts that the code now gives; look at the difference before it is kept.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from allocators.base import Demand, Geometry, NeverFits, Prompt
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual

FILE = Path(__file__).parents[1] / "golden" / "allocators.json"
POOL = Geometry(capacity_tokens=4000, max_seqs=48, max_len=512, layers=2, kv_heads=8, head_dim=512)
STEPS = 600

ALLOCATORS = {
    **{f"contiguous_{r}_{p}": lambda r=r, p=p: Contiguous(POOL, reservation=r, placement=p)
       for r in ("max", "pow2", "oracle", "grow") for p in ("buddy", "first_fit", "best_fit")},
    **{f"paged_{b}": lambda b=b: Paged(POOL, block_size=b) for b in (1, 7, 16, 64)},
    "paged_watermark": lambda: Paged(POOL, block_size=16, watermark=0.05),
    **{f"virtual_{r}_{s}_{'options' if on else 'plain'}": lambda r=r, s=s, on=on: Virtual(
        POOL, rules=r, page_size="64KiB", sharing=s, deferred=on, background=on)
       for r in ("vattention", "paper") for s in ("alias", "copy") for on in (True, False)},
    "virtual_admission": lambda: Virtual(POOL, admission="vattention", page_size="64KiB"),
    "virtual_sliced": lambda: Virtual(POOL, page_size="256KiB", layout="sliced"),
}  # fmt: skip


def count(allocator):
    """Serve beam and greedy groups for a while; preempt the latest when growth is refused.

    The draws depend on nothing but the step, so every allocator is asked the same at first.
    """
    counts, groups = Counter(peak_pages=0), {}

    def note(what, grant):
        if grant is None:
            counts[f"refused_{what}"] += 1
            return False
        counts[what] += 1
        counts["copied_slots"] += int(grant.copies[:, 2].sum())
        for kind in ("copies", "maps", "unmaps"):
            counts[kind] += len(getattr(grant, kind))
        return True

    def end(group, leave=allocator.release):
        note("release", leave(group))
        del groups[int(group[0])]

    for step in range(STEPS):
        rng = np.random.default_rng([7, step])
        idle = np.flatnonzero(~allocator.active)
        size = int(rng.choice([1, 1, 4]))
        prompt, output = int(rng.integers(1, 200)), int(rng.integers(2, 200))
        private = min(int(rng.integers(0, 8)), output - 1) if size > 1 and rng.random() < 0.3 else 0
        if step % 3 == 0 and len(idle) >= size:
            rows, demand = idle[:size], Demand(prompt, output, private)
            try:
                grant = allocator.admit(rows, Prompt(prompt), demand)
            except NeverFits:
                counts["never_fits"] += 1
            else:
                if note("admit", grant):
                    groups[int(rows[0])] = (rows, prompt + output - 1)
        for group, final in list(groups.values()):
            if allocator.length[group[0]] >= final:
                end(group)
        while groups:
            rows = np.concatenate([group for group, _ in groups.values()])
            switch = rng.random(len(rows)) < 0.2
            drawn = [rng.choice(group) for group, _ in groups.values() for _ in group]
            note("reassign", allocator.reassign(rows, np.where(switch, drawn, rows)))
            if note("grow", allocator.grow(rows)):
                break
            end(next(reversed(groups.values()))[0], allocator.preempt)
        before, beside = allocator.begin_step()
        for kind in ("maps", "unmaps"):
            counts[kind] += len(getattr(before, kind))
            if len(getattr(beside, kind)):
                counts[f"{kind}_beside"] += len(getattr(beside, kind))
        everyone = [group for group, _ in groups.values()]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *everyone])
        finals = [final for group, final in groups.values() for _ in group]
        usage = allocator.usage(rows, np.array(finals, dtype=np.int64))
        counts["peak_pages"] = max(counts["peak_pages"], int(usage.pages[0]))
        counts["token_bytes"] += int(usage.token[0])
        counts["internal_bytes"] += int(usage.internal[0])
        counts["free_bytes"] += int(usage.free[0])
    allocator.check()
    return dict(sorted(counts.items()))


def table():
    return {name: count(make()) for name, make in ALLOCATORS.items()}


if __name__ == "__main__":
    text = json.dumps(table(), indent=1) + "\n"
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text)
    print(text, end="")
