"""The answer to whether something can be used here, with a reason where it cannot."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Support:
    """The answer of a probe; `reason` says why not and is empty if `ok`."""

    ok: bool
    reason: str = ""


YES = Support(True)


def no(reason: str) -> Support:
    return Support(False, reason)


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
