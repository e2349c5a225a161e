"""One comparison, from options to results: the same requests through each allocator.

    from harness.comparison import compose, prepare, run_comparison

    prepared = prepare(compose("+workload=beam", "allocator=[paged,virtual]"))
    comparison = run_comparison(prepared, "results/mine")
    {row.allocator: row.metrics for row in comparison.rows}

`compose` reads `conf/` as the command line does, `prepare` checks everything that can be checked
before a run, and `run_comparison` runs the allocators and writes the run directory. Nothing here
prints.
"""

from harness.comparison.comparison import Comparison, run_comparison
from harness.comparison.config import Config, compose
from harness.comparison.prepared import Prepared, prepare

__all__ = ["Comparison", "Config", "Prepared", "compose", "prepare", "run_comparison"]
