"""Tests on Triton's interpreter, which need a process of their own."""

import os
import subprocess
import sys

from tests.places import ROOT


def run_interpreted(path, which="not further"):
    """Run one file of tests with TRITON_INTERPRET=1, `which` of them; return what pytest says.

    Whether Triton interprets is settled when kernels are defined.
    """
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", "-m", which, path],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    return run.stdout
