"""Checks a sweep before any of its jobs begins: each point, the folder, and who runs it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from harness.cli.config_dir import quoted
from harness.cli.overrides import edges, grid
from harness.cli.points import Points, wants_report
from harness.cli.sweeps.composer import Composer
from harness.cli.sweeps.plan import BASIC_SWEEPER, Sweep, check_places, check_resumable, place_of
from harness.comparison.config import compose, to_config
from harness.errors import ConfigError
from harness.results import Claim
from harness.results.goal import SweepSpec

BASIC_LAUNCHER = "BasicLauncher"
#: launchers whose jobs all run on this machine
LOCAL = ("joblib", "submitit_local")
#: how long a cluster's head may take to answer
CONNECT_S = 5.0


def checked_sweep(lines: Sequence[str], overrides: Sequence[Override], points: Points) -> Sweep:
    """Return the sweep of the overrides, its folder claimed and every point prepared.

    Where the sweeper chooses the points, the values of each option are tried one after another.
    Raises what composing raises, `ConfigError` and `ResultsError`.
    """
    composed = compose(*next(edges(overrides)), with_hydra=True)
    launcher = str(composed.hydra.runtime.choices.get("hydra/launcher"))
    folder, spec = Path(composed.hydra.sweep.dir).absolute(), to_config(composed).sweep
    pinned = [f"hydra.sweep.dir={quoted(str(folder))}"]
    sweep = Sweep(folder, [*lines, *pinned], spec, wants_report(composed), launcher=launcher)
    sweep.swept = sorted({o.key_or_group for o in overrides if o.is_sweep_override()})
    sweep.searched = _class(composed.hydra.sweeper) != BASIC_SWEEPER
    if spec.resume and not any(o.key_or_group == "hydra.sweep.dir" for o in overrides):
        raise ConfigError("sweep.resume=true needs the folder to go on in: hydra.sweep.dir=DIR")
    if sweep.searched:
        sweep.lines += _direction(composed, spec)
    sweep.lines += _of_ray(composed)
    sweep.beside = _class(composed.hydra.launcher) != BASIC_LAUNCHER
    real, composer = False, Composer(overrides)
    for number, point in enumerate((edges if sweep.searched else grid)(overrides)):
        composed = composer.compose(point)
        real |= points.check(composed, point).config.is_real
        if not sweep.searched:
            sweep.places.append(place_of(composed, number, point))
    check_places(sweep.places)
    if real:
        _check_clock(composed, sweep)
    points.claim = Claim(folder, used=spec.resume)
    if spec.resume:
        check_resumable(folder)
    return sweep


def _direction(composed: DictConfig, spec: SweepSpec) -> list[str]:
    """Return the override that tells a sweeper that more is better."""
    name = str(composed.hydra.runtime.choices.get("hydra/sweeper"))
    if spec.maximize is None:
        raise ConfigError(
            f"hydra/sweeper={name} looks for the most of a metric: give it, "
            "sweep.maximize=output_tokens_per_s"
        )
    return ["hydra.sweeper.direction=maximize"] if "direction" in composed.hydra.sweeper else []


def _of_ray(composed: DictConfig) -> list[str]:
    """Return the override without which Hydra's Ray launcher joins no cluster.

    It asks for an object store of its own size, which Ray refuses to a cluster that is there.
    Raises `ConfigError` where nothing answers at the cluster's address.
    """
    settings = composed.hydra.launcher.get("ray")
    if settings is None:
        return []
    init = settings.get("init") or {}
    check_cluster(init.get("address"))
    if "object_store_memory" in init:
        return []
    return ["+hydra.launcher.ray.init.object_store_memory=null"]


def check_cluster(address: str | None) -> None:
    """Raise `ConfigError` where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = str(address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # Ray is to find it, or to start one
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"hydra.launcher.ray.init.address={address}: no Ray cluster answers there "
            f"({error.strerror or error}); without an address one is started on this machine"
        ) from error


def _check_clock(composed: DictConfig, sweep: Sweep) -> None:
    """Refuse to measure on a clock beside something else; elsewhere each waits for its turn."""
    alone = composed.hydra.launcher.get("n_jobs") == 1
    if sweep.launcher in LOCAL and not alone:
        remedy = "leave it out" + " or hydra.launcher.n_jobs=1" * (sweep.launcher == "joblib")
        raise ConfigError(
            f"executor=model measures on a clock, and hydra/launcher={sweep.launcher} runs jobs "
            f"beside each other on one machine: {remedy}"
        )


def _class(node: DictConfig) -> str:
    return str(node.get("_target_")).rpartition(".")[2]
