"""`python -m harness` in this process: one of its own spends seconds on imports."""

import io
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from harness.__main__ import main


@dataclass(frozen=True)
class Done:
    """How a command ended, as `subprocess.run` says it."""

    returncode: int
    stdout: str
    stderr: str


def run_harness(*arguments, cwd):
    """Run the command line with `cwd` as the working directory."""
    out, err = io.StringIO(), io.StringIO()
    status = None
    with (
        chdir(cwd), patch.object(sys, "argv", ["harness", *arguments]),
        redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    return Done(status, out.getvalue(), err.getvalue())
