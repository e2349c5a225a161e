"""The points of a sweep, each with its folder and its key; and what an earlier start left there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, open_dict

from harness.command.output import say
from harness.comparison.key import job_key
from harness.errors import ConfigError
from harness.results import Claim, ResultsError
from harness.results.goal import SweepSpec
from harness.results.outcome import JOB, read_outcome
from harness.results.sweep import job_dirs

#: finished jobs for which the present points have no use, by key; hidden, so in no table
KEPT = ".kept"
#: Hydra's configuration of the sweep: what tells its folder from any other
MARK = "multirun.yaml"
#: Hydra's own sweeper, which runs every combination; any other chooses as it goes
BASIC_SWEEPER = "BasicSweeper"
#: seconds between two looks at a job that an earlier start left running
LOOK_S = 0.2


@dataclass(frozen=True)
class Place:
    """One point: the options that its job is given, its folder below the sweep's, its key."""

    overrides: tuple[str, ...]
    folder: str
    key: str


@dataclass
class Sweep:
    """What a command line asks for that runs many jobs.

    folder: of the whole sweep, absolute.
    lines: the overrides for Hydra, as given.
    places: every point, in order.
    swept: the names of the options that vary.
    searched: whether the sweeper chooses the points as it goes; then `places` is empty.
    launcher: Hydra's name of what runs the jobs; beside: whether it runs several at once.
    """

    folder: Path
    lines: list[str]
    spec: SweepSpec
    report: bool
    places: list[Place] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    searched: bool = False
    launcher: str = "basic"
    beside: bool = False

    @property
    def missing(self) -> list[Place]:
        """The points whose job has not ended."""
        return [place for place in self.places if not self.has_ended(place)]

    def has_ended(self, place: Place) -> bool:
        """Whether a job of a point's key has ended in its folder."""
        outcome = read_outcome(self.folder / place.folder)
        return outcome is not None and outcome.key == place.key


def place_of(composed: DictConfig, number: int, overrides: Sequence[str]) -> Place:
    """Return the place of a point, composed with Hydra's own settings."""
    with open_dict(composed):
        composed.hydra.job.num = number
        composed.hydra.job.id = str(number)
    of_all = ("hydra.", "hydra/", "+hydra", "sweep.", "+sweep.")
    options = tuple(line for line in overrides if not line.startswith(of_all))
    return Place(options, str(composed.hydra.sweep.subdir), job_key(composed))


def check_places(places: Sequence[Place]) -> None:
    """Raise `ConfigError` where two jobs would write to one folder."""
    seen: set[str] = set()
    for place in places:
        if place.folder in seen:
            raise ConfigError(
                f"hydra.sweep.subdir gives two jobs one folder, {place.folder}: let it hold "
                "${hydra.job.num}, or every option that varies"
            )
        seen.add(place.folder)


def check_resumable(folder: Path) -> None:
    """Raise `ResultsError` for a folder that holds anything but a sweep."""
    held = [path.name for path in folder.iterdir() if path.name != ".lock"]
    if held and MARK not in held:
        raise ResultsError(
            f"{folder}: sweep.resume=true goes on with a sweep, and this is none (it holds "
            f"{min(held)} and no {MARK})"
        )


def arrange(sweep: Sweep) -> None:
    """Give every finished job of an earlier start its place, and clear the places of the others.

    A finished job that no point asks for is kept out of sight, until a point does. Where the points
    are not known yet, that is every one; a job looks there first.
    """
    wanted = {place.folder: place.key for place in sweep.places}
    kept = sweep.folder / KEPT
    for job in sorted(job_dirs(sweep.folder)):
        _wait_for(job)
        outcome = read_outcome(job)
        if outcome is None or not outcome.finished:
            shutil.rmtree(job)
        elif wanted.get(job.relative_to(sweep.folder).as_posix()) != outcome.key:
            if (kept / outcome.key).exists():
                shutil.rmtree(job)
                continue
            kept.mkdir(exist_ok=True)
            job.rename(kept / outcome.key)
    for place in sweep.places:
        target = sweep.folder / place.folder
        if (kept / place.key).exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (kept / place.key).rename(target)


def adopt(folder: Path, sweep_folder: Path, key: str, *, searched: bool) -> bool:
    """Give a job's folder what a finished job of its key left, if there is one; say whether.

    There may be one of an earlier start, and in a sweep that is `searched` one of this start too: a
    sweeper asks for a good point more than once.
    """
    sources = [sweep_folder / KEPT / key]
    if searched:
        sources += sorted(path.parent for path in sweep_folder.glob(f"*/{JOB}"))
    for source in sources:
        outcome = read_outcome(source)
        if outcome is None or outcome.key != key or not outcome.finished:
            continue
        # The outcome last: before it is there, the job has not ended.
        for path in sorted(source.iterdir(), key=lambda path: path.name == JOB):
            if path.is_dir() and path.name != ".hydra":
                shutil.copytree(path, folder / path.name)
            elif path.is_file() and path.name != ".lock":
                shutil.copy2(path, folder / path.name)
        return True
    return False


def clear(folder: Path) -> None:
    """Remove what a job that did not end has left, but for what Hydra wrote for the next."""
    for path in folder.iterdir():
        if path.name in (".hydra", ".lock"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _wait_for(job: Path) -> None:
    if Claim.is_held(job):
        say(f"note: {job} is still being run by an earlier start: waiting for it")
        while Claim.is_held(job):
            time.sleep(LOOK_S)
