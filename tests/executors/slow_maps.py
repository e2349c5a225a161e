"""A real run whose background maps are late; run by test_model_decisions in a process of its own.

A step that does not wait for them writes to memory that is not there, which ends the process.
"""

import time

from executors.serving_cases import contiguous, requests, serve, virtual

from kernels.memory.virtual import Virtual

prompt = Virtual._map_ahead
late = 0


def slow(self, maps):
    global late
    late += 1
    time.sleep(0.05)
    prompt(self, maps)


Virtual._map_ahead = slow
table = requests(6, longest=(40, 40))
seen = serve(virtual(800, layout="sliced"), table)
assert late, "nothing was mapped ahead"
assert seen.digest == serve(contiguous(2000, reservation="grow"), table).digest
print("late maps were waited for")
