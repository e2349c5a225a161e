"""The serving engine: arrivals, scheduling, preemption, sampling and accounting.

    arrivals -> scheduler.plan -> allocator -> executor.step -> meter, totals

engine      the loop, one step at a time, or several at once where nothing but growth happens
schedulers  the policies: who runs the next step, and what memory must do for it
running     the batch as columns, an entry for each sequence: all that decoding reads and writes
executor    the clock: what the engine asks of whoever runs or prices a step
meter       the columns of the timeline, every byte in one category; totals: sums over the run
"""
