"""Which rows an admission takes, in the loop over arrays."""

import numpy as np
import pytest

from harness.engine.compiled.engine import records
from harness.engine.compiled.queue import find_rows, leave_row
from harness.engine.compiled.state import NOW, PLACE, ROWS, Options, State

MOST = 12


@pytest.mark.parametrize("width", [1, 3, 5])
def test_an_admission_takes_the_first_free_rows(width):
    rng = np.random.default_rng(0)
    columns = np.zeros((5, 2 * MOST), dtype=np.int64)
    places, now = records(MOST, PLACE), records(1, NOW)[0]
    state = State(None, columns, None, places, None, [now])
    limits = {"max_rows": MOST, "width": width}
    options = Options(*[limits.get(name, 0) for name in Options._fields])
    groups, full = [], 0
    for _ in range(2000):
        now.running = len(groups)
        free = sorted(set(range(MOST)) - {row for group in groups for row in group})
        found, first = find_rows(options, state), width * len(groups)
        assert found == (len(free) >= width)
        rows = columns[ROWS, first : first + width].tolist()
        assert not found or rows == free[:width]
        full += not found
        if found and rng.random() < 0.6:
            places.taken[rows] = 1
            groups.append(rows)
        elif groups:
            for row in groups.pop(int(rng.integers(len(groups)))):
                leave_row(state, row)
    assert full > 50
