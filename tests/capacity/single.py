"""A server of one sequence at a time, so that queues are those of textbooks; and searches alone."""

from harness.capacity.probe import observe
from harness.capacity.question import variants_of

#: one sequence at a time: prompts of 100 tokens, one token of output
ONE = (
    *("+workload=uniform", "engine.max_num_seqs=1", "engine.compiled=off", "allocator=[paged]"),
    *("workload.prompt.kind=fixed", "workload.prompt.value=100"),
    *("workload.output.kind=fixed", "workload.output.value=1"),
)


def variant(*lines):
    """Return the only variant of these options."""
    (found,) = variants_of(lines)
    return found


def drive(search, see=observe):
    """Run a search with a function from a probe to its observation; return its value."""
    wanted = next(search)
    while True:
        try:
            wanted = search.send([see(probe) for probe in wanted])
        except StopIteration as stop:
            return stop.value
