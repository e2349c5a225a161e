"""What an allocator may answer: a wrong answer is named where it is given, not where it hurts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from allocators.base import EMPTY_GRANT, NO_STEP_GRANTS, Grant, StepGrants, Usage

#: decisions that a policy may not refuse
NEVER_REFUSED = ("truncate", "release", "preempt")
#: queries, which answer with a number of tokens or of steps
COUNTS = ("lookup", "leading", "quiet_steps", "lone_steps")
#: numbers in a row of a grant's tables; the fourth is a layer group
WIDTHS = (3, 4)
#: the tables of a grant, and what stands there if there are none
TABLES = {item.name: item.default_factory() for item in fields(Grant) if item.type == "IntArray"}


class WrongAnswer(TypeError):
    """An allocator answered with what the protocol does not have; the text names the call."""


def check_answer(call: str, answer: Any) -> None:
    """Raise `WrongAnswer` unless `answer` is of the kind that the protocol has for `call`."""
    if answer is (NO_STEP_GRANTS if call == "begin_step" else EMPTY_GRANT):
        return
    if call in COUNTS:
        if not (isinstance(answer, int | np.integer) or (call == "leading" and answer is None)):
            raise WrongAnswer(f"{call} answered {_short(answer)} instead of a whole number")
    elif call == "usage":
        if not isinstance(answer, Usage):
            raise WrongAnswer(f"usage answered {_short(answer)} instead of a Usage")
    elif call == "begin_step":
        if not isinstance(answer, StepGrants) or not all(isinstance(g, Grant) for g in answer):
            raise WrongAnswer(f"begin_step answered {_short(answer)} instead of StepGrants")
        for grant in answer:
            _check_grant(call, grant)
    elif isinstance(answer, Grant):
        _check_grant(call, answer)
    elif call in NEVER_REFUSED:
        raise WrongAnswer(f"{call} answered {_short(answer)} instead of a Grant")
    elif answer is not None:
        raise WrongAnswer(f"{call} answered {_short(answer)} instead of a Grant or None")


def _check_grant(call: str, grant: Grant) -> None:
    if not isinstance(grant.cached_tokens, int | np.integer):
        raise WrongAnswer(f"{call} granted cached_tokens={_short(grant.cached_tokens)}")
    for name, none in TABLES.items():
        table = getattr(grant, name)
        if table is none:
            continue
        if not isinstance(table, np.ndarray) or table.ndim != 2 or table.shape[1] not in WIDTHS:
            raise WrongAnswer(
                f"{call} granted {name}={_short(table)} instead of rows of three "
                "numbers, or of four"
            )


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
