"""The serving engine: arrivals, scheduling, preemption, sampling and accounting.

    arrivals -> scheduler.plan -> allocator -> executor.step -> meter

One step at a time, or several at once where nothing but growth happens.
"""
