"""The program: command line, serving engine, executors, metrics, results and reports.

From Python, `harness.run` runs a comparison or a sweep and `harness.load` reads results back.
"""

from __future__ import annotations

import sys


def _without_traceback(kind: type[BaseException], *error: object) -> None:
    """Let Ctrl-C end a process without a word; of all else say what Python says."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, *error)


# With `python -m` the package is imported before the command is, and until its frame stands
# (`harness.command.frame`) nothing else catches Ctrl-C.  Whoever imports us keeps their own hook.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _without_traceback

import os  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from harness.siblings import put_first  # noqa: E402

# Read by OpenMP when torch is loaded. By default its threads spin after each product, and where
# cores are shared a spinning thread keeps the one it waits for from running: steps of a small model
# then took 10 to 40 times as long (docs/LOG.md). An environment that sets the variable
# itself keeps its own value.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
put_first()

if TYPE_CHECKING:
    from harness.api import Results, load, run
    from harness.errors import InputError

__all__ = ["InputError", "Results", "load", "run"]


def __getattr__(name: str) -> object:
    # Not with the package: a command that prints its help needs none of it.
    if name == "InputError":
        from harness.errors import InputError

        return InputError
    if name in __all__:
        from harness import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
