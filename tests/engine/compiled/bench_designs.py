"""The designs that were weighed: a batch grows by one slot, written and run in several ways.

python -m pytest -o addopts= --benchmark-only tests/engine/compiled/bench_designs.py

Growth by one slot is the rule that a simulated run asks most often.  `elementwise` goes row by row,
`columns` takes the batch as NumPy columns; each runs as Python, compiled, and compiled within
compiled code, without the way through Python (300 calls in one).
"""

import numba
import numpy as np
import pytest

BLOCK, ROUNDS = 16, 300


def elementwise(length, table, count, ref, ring, ends, rows):
    needed = 0
    for row in rows:
        needed += max(-(-(length[row] + 1) // BLOCK) - count[row], 0)
    if needed > ends[1]:
        return False
    for row in rows:
        while count[row] * BLOCK < length[row] + 1:
            page = ring[ends[0]]
            ends[0] = (ends[0] + 1) % len(ring)
            ends[1] -= 1
            table[row, count[row]] = page
            ref[page] = 1
            count[row] += 1
        length[row] += 1
    return True


def columns(length, table, count, ref, ring, ends, rows):
    lengths = length[rows]
    missing = np.maximum(-(-(lengths + 1) // BLOCK) - count[rows], 0)
    if missing.sum() > ends[1]:
        return False
    at = np.flatnonzero(missing)
    if len(at):
        grown = rows[at]
        pages = ring[(ends[0] + np.arange(len(at))) % len(ring)]
        ends[0] = (ends[0] + len(at)) % len(ring)
        ends[1] -= len(at)
        table.reshape(-1)[grown * table.shape[1] + count[grown]] = pages
        ref[pages] = 1
        count[grown] = count[grown] + missing[at]
    length[rows] = lengths + 1
    return True


def pool(batch):
    """Return the arrays of a pool in which `batch` sequences of different lengths run."""
    length = np.random.default_rng(0).integers(50, 350, 256)
    count = -(-length // BLOCK)
    table, ref = np.full((256, 256), -1), np.zeros(60_000, dtype=np.int64)
    return length, table, count, ref, np.arange(60_000), np.array([0, 60_000]), np.arange(batch)


@pytest.mark.parametrize("batch", [20, 128, 256])
@pytest.mark.parametrize("way", ["python", "compiled", "within"])
@pytest.mark.parametrize("rule", [elementwise, columns], ids=lambda rule: rule.__name__)
def test_growth_by_one_slot(rule, way, batch, benchmark):
    compiled = numba.njit(rule)

    @numba.njit
    def many(arguments):
        for _ in range(ROUNDS):
            compiled(*arguments)

    calls = {
        "python": lambda: (rule, pool(batch)),
        "compiled": lambda: (compiled, pool(batch)),
        "within": lambda: (many, (pool(batch),)),
    }
    call, arguments = calls[way]()
    call(*arguments)
    if way == "within":
        benchmark.pedantic(call, setup=lambda: (calls[way]()[1], {}), rounds=10)
        return
    call, arguments = calls[way]()
    benchmark.pedantic(call, args=arguments, rounds=ROUNDS)
