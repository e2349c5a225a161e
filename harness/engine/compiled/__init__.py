"""The engine over arrays: the steps of `harness.engine`, compiled by Numba.

What it serves, and what it leaves to that engine, `harness.engine.choice.why_not` says.

    engine          the driver: makes the arrays, runs the loop block by block, makes the log
    chunked, whole_prompts      the loops, one for each kind of scheduling
    queue, step     what the loops share: queue, rows, preemption; executing, accounting, sampling
    keys, lineages  what requests bring along: keys of their blocks, and beams
    state           the arrays
    clock           what a step takes, asked of the executor's prices
    build           compiling, and where that is kept

A loop runs as plain Python too, slowly: so the tests hold it to the step engine.
"""
