"""Prices the designs that were weighed: a batch grows by one slot, written and run in four ways.

    python -m tests.engine.compiled.designs

Growth by one slot is the rule that a simulated run asks most often.  `elementwise` goes row by row,
`columns` takes the batch as NumPy columns; each runs as Python and compiled.  The last figure is
that of the compiled ones called from compiled code, without the way through Python.
"""

from time import process_time

import numba
import numpy as np

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


def microseconds(call, *arguments):
    """Return what a call costs, of ROUNDS behind one that compiles."""
    call(*arguments)
    start = process_time()
    for _ in range(ROUNDS):
        call(*arguments)
    return (process_time() - start) / ROUNDS * 1e6


def main():
    print("rows  rule         Python  compiled  within compiled code   us; compiling, s")
    for rule in (elementwise, columns):
        for batch in (20, 128, 256):
            compiled = numba.njit(rule)
            start = process_time()
            compiled(*pool(batch))
            compile_s = process_time() - start

            @numba.njit
            def many(rounds, arguments, compiled=compiled):
                for _ in range(rounds):
                    compiled(*arguments)

            many(1, pool(batch))
            arguments, start = pool(batch), process_time()
            many(ROUNDS, arguments)
            within = (process_time() - start) / ROUNDS * 1e6
            python, called = (microseconds(call, *pool(batch)) for call in (rule, compiled))
            print(
                f"{batch:4}  {rule.__name__:11}  {python:6.1f}  {called:8.1f}  {within:20.2f}"
                f"   {compile_s:.2f}"
            )


if __name__ == "__main__":
    main()
