"""Which row an admission takes, in the loop over arrays."""

import numpy as np

from harness.engine.compiled.engine import records
from harness.engine.compiled.queue import free_row, leave_row
from harness.engine.compiled.state import NOW, PLACE, Options, State

ROWS = 12


def test_an_admission_takes_the_first_free_row():
    rng = np.random.default_rng(0)
    state = State(*[None] * 4, places=records(ROWS, PLACE), now=records(1, NOW))
    options = Options(*[ROWS if name == "max_rows" else 0 for name in Options._fields])
    now, taken, full = state.now[0], set(), 0
    for _ in range(2000):
        row = free_row(state, options)
        assert row == min(set(range(ROWS)) - taken, default=-1)
        full += row < 0
        if row >= 0 and rng.random() < 0.6:
            state.places[row].taken = 1
            taken.add(row)
        elif taken:
            gone = int(rng.choice(sorted(taken)))
            leave_row(state, gone)
            taken.remove(gone)
        now.running = len(taken)
    assert full > 50
