"""What was prepared when the command line was checked, kept for the jobs that run it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from harness.cli.ignored import ignored
from harness.comparison import Prepared, prepare
from harness.comparison.config import plain_options
from harness.comparison.prepared import RequestTables
from harness.results import Claim

if TYPE_CHECKING:
    from harness.cli.sweeps.plan import Sweep

#: points of a sweep whose requests and allocators are kept; those of others are made again
KEPT_POINTS = 16


class Points:
    """What is prepared of the points of a command line: of the one, or of the first of a sweep.

    claim: the directory of the run or the sweep, which no other run may use meanwhile.
    sweep: the sweep, if it is one.
    only: otherwise the one point, prepared.
    composed: its configuration with Hydra's own, if Hydra has no more to say about it.
    """

    def __init__(self) -> None:
        self.claim: Claim | None = None
        self.sweep: Sweep | None = None
        self.only: Prepared | None = None
        self.composed: DictConfig | None = None
        self._kept: dict[str, Prepared] = {}
        self._tables = RequestTables()

    def check(self, composed: DictConfig, overrides: Sequence[str] = ()) -> Prepared:
        """Prepare the point of these overrides; raises `ConfigError` if it cannot be run."""
        prepared = self._prepared(composed, overrides)
        if len(self._kept) < KEPT_POINTS:
            self._kept[_identity(composed)] = prepared
        return prepared

    def take(self, composed: DictConfig, overrides: Sequence[str] = ()) -> Prepared:
        """Return a point's prepared value, once; raises `ConfigError`."""
        kept = self._kept.pop(_identity(composed), None)
        return kept or self._prepared(composed, overrides)

    def _prepared(self, composed: DictConfig, overrides: Sequence[str] = ()) -> Prepared:
        prepared = prepare(composed, self._tables)
        prepared.notes += ignored(prepared.config, overrides)
        prepared.saved["notes"] = list(prepared.notes)
        return prepared

    def release(self) -> None:
        """Give up the directory."""
        if self.claim is not None:
            self.claim.release()


def wants_report(composed: DictConfig) -> bool:
    """Say whether a report is to be written."""
    return composed.get("report", "none") != "none"


def _identity(composed: DictConfig) -> str:
    return json.dumps(plain_options(composed, resolve=False), default=str)
