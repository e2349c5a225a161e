"""The program: command line, serving engine, executors, metrics, results and reports."""

import os

from harness.siblings import put_first

# Read by OpenMP when torch is loaded. By default its threads spin after each product, and where
# cores are shared a spinning thread keeps the one it waits for from running: steps of a small model
# then took 10 to 40 times as long (docs/LOG.md). An environment that sets the variable
# itself keeps its own value.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
put_first()
