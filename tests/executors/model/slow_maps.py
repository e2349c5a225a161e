"""A real run whose background maps are late; run by test_decisions in a process of its own.

A step that does not wait for them writes to memory that is not there, which ends the process.
"""

import time

from kernels.memory.virtual import VirtualMemory
from tests.executors.model.serving_cases import contiguous, requests, serve, virtual

on_time = VirtualMemory._beside
late = 0


def slow(self, calls):
    global late
    late += 1
    time.sleep(0.05)
    on_time(self, calls)


VirtualMemory._beside = slow
for n, longest, tokens in ((10, (32, 32), 800), (2, (8, 8), 48)):
    # In the small pool one page-group is left for both to grow into.
    table = requests(n, longest=longest)
    expected = serve(contiguous(2000, reservation="grow"), table).digest
    for engine in (
        {"policy": "continuous"},
        {"policy": "orca"},
        {"policy": "chunked", "max_num_batched_tokens": 60},
    ):
        late = 0
        assert serve(virtual(tokens, layout="sliced"), table, **engine).digest == expected
        assert late, "nothing was mapped beside a step"
print("late maps were waited for")
