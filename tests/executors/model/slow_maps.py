"""A real run whose background maps are late; run by test_decisions in a process of its own.

A step that does not wait for them writes to memory that is not there, which ends the process.
"""

import time

from kernels.memory.virtual import VirtualMemory
from tests.executors.model.serving_cases import contiguous, requests, serve, virtual

on_time = VirtualMemory._map_ahead
late = 0


def slow(self, maps):
    global late
    late += 1
    time.sleep(0.05)
    on_time(self, maps)


VirtualMemory._map_ahead = slow
for n, longest, tokens in ((10, (32, 32), 800), (2, (8, 8), 32)):
    # In the small pool the second request is let in without a grant, into the page-group that the
    # first one's grant maps ahead.
    table = requests(n, longest=longest)
    expected = serve(contiguous(2000, reservation="grow"), table).digest
    for engine in (
        {"policy": "continuous"},
        {"policy": "orca"},
        {"policy": "chunked", "max_num_batched_tokens": 60},
    ):
        late = 0
        assert serve(virtual(tokens, layout="sliced"), table, **engine).digest == expected
        assert late, "nothing was mapped ahead"
print("late maps were waited for")
