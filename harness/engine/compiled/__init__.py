"""The engine over arrays: the steps of `harness.engine`, for single sequences, compiled by Numba.

    engine          the driver: makes the arrays, runs the loop block by block, makes the log
    chunked, whole_prompts      the loops, one for each kind of scheduling
    queue, step     what the loops share: queue, rows, preemption; executing, accounting, sampling
    state           the arrays
    clock           what a step takes, asked of the executor's prices
    build           compiling, and where that is kept

A loop runs as plain Python too, slowly: so the tests hold it to the step engine.
"""
