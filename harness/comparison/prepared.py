"""Everything that can be checked and built before a run, built once: requests, pool, allocators."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from hydra.utils import get_class
from omegaconf import DictConfig

from allocators.base import Allocator, Geometry
from harness.comparison.checks import check, check_real
from harness.comparison.config import Config, run_options, to_config
from harness.comparison.pool import doubts, make_geometry, pool_option, unmeasured_blocks
from harness.comparison.time_limit import time_limit
from harness.cost import Calibrated, CostError, make_cost
from harness.cost.kv import needed_bytes
from harness.errors import ConfigError
from workloads.build import build
from workloads.errors import WorkloadError
from workloads.requests import RequestTable

#: page-groups of a pool below which their size alone decides what fits
FEW_GROUPS = 32
#: request tables that are kept for the next point of a sweep
KEPT_TABLES = 4


@dataclass
class Prepared:
    """A configuration that makes sense, and what a run of it starts from.

    saved: the configuration as it is kept with the results, notes included.
    notes: what the user should know before the run, a line each.
    """

    config: Config
    saved: dict[str, Any]
    geometry: Geometry
    requests: RequestTable
    notes: list[str]
    _unused: dict[str, Allocator] = field(default_factory=dict)

    def allocator(self, name: str) -> Allocator:
        """Return a fresh allocator: the one made when its knobs were checked, or another.

        Raises `AllocatorError`, `MemoryError`.
        """
        if name in self._unused:
            return self._unused.pop(name)
        return make_allocator(name, self.config.allocators[name], self.geometry)


class RequestTables:
    """The tables made last, so that points of a sweep that serve the same requests share one."""

    def __init__(self) -> None:
        self._tables: dict[str, RequestTable] = {}

    def of(self, config: Config) -> RequestTable:
        """Return the requests of a configuration; raises `ConfigError`."""
        served = config.executor.max_requests if config.is_real else None
        depends_on = [asdict(config.workload), config.seed, config.max_len, served]
        key = json.dumps(depends_on, default=str)
        if key not in self._tables:
            table = _make_requests(config, served)
            self._tables = dict([*self._tables.items(), (key, table)][-KEPT_TABLES:])
        return self._tables[key]


def prepare(composed: DictConfig, tables: RequestTables | None = None) -> Prepared:
    """Check everything that can be checked before a run; raises `ConfigError` in one line.

    `tables` hands request tables on from one configuration to the next.
    """
    return prepared_of(to_config(composed), run_options(composed), tables)


def prepared_of(
    config: Config, saved: dict[str, Any], tables: RequestTables | None = None
) -> Prepared:
    """Prepare a configuration that is typed already, of which `saved` is the plain data.

    Both become part of what is returned.  Raises `ConfigError` as `prepare` does.
    """
    check(config)
    if config.model.path:
        saved["model"] = asdict(config.model)
    if config.is_real:
        # Not imported by a simulated run, which needs no torch.
        from harness.executors.model.settings import described, settle

        config.model = settle(config.executor, config.model)
        check_real(config)
        saved.update(described(config.executor, config.model))
    geometry = make_geometry(config)
    if config.is_real:
        from harness.executors.model.settings import check_pool

        check_pool(config.executor, config.model, geometry.capacity_bytes)
    requests = (tables or RequestTables()).of(config)
    _check_longest(config, geometry, requests)
    try:
        cost = make_cost(config.model, config.hardware, config.cost_model, config.software)
    except CostError as error:
        raise ConfigError(str(error)) from error
    prepared = Prepared(config, saved, geometry, requests, list(requests.notes))
    for name in config.allocators:
        _try_allocator(prepared, name)
    prepared.notes += doubts(config, geometry)
    if isinstance(cost, Calibrated) and not config.is_real:
        prepared.notes += unmeasured_blocks(config, cost.page_sizes)
    saved.update(notes=list(prepared.notes), num_requests=len(requests))
    return prepared


def make_allocator(name: str, knobs: dict[str, Any], geometry: Geometry) -> Allocator:
    """Return the allocator `name`; raises `ConfigError` for a bad knob.

    Whatever else the allocator itself raises passes through: it is a result.
    """
    arguments = {key: value for key, value in knobs.items() if key != "_target_"}
    try:
        kind = get_class(knobs["_target_"])
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may end in anything when it is imported
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(f"allocators.{name}: no allocator class ({reason})") from error
    if not issubclass(kind, Allocator):
        raise ConfigError(
            f"allocators.{name}: {knobs['_target_']} is no allocator: it must be a subclass of "
            "allocators.base.Allocator"
        )
    try:
        return kind.of(geometry, **arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"allocators.{name}: {error}") from error


def _make_requests(config: Config, served: int | None) -> RequestTable:
    try:
        requests = build(config.workload, config.seed)
        if served is not None and len(requests) > served:
            total, requests = len(requests), requests.take(np.arange(served))
            requests.notes.append(
                f"executor=model serves the first {served} of {total} requests; "
                "executor.max_requests=null serves all"
            )
        return requests.limit(config.max_len, config.workload.too_long)
    except WorkloadError as error:
        raise ConfigError(str(error)) from error


def _check_longest(config: Config, geometry: Geometry, requests: RequestTable) -> None:
    """Refuse requests of which one can fit no allocator at all."""
    longest = requests.prompt_tokens + requests.output_tokens - 1
    at = int(longest.argmax())
    tokens, name = int(longest[at]), requests.name(at)
    if geometry.layer_groups:
        needed = needed_bytes(geometry.layer_groups, tokens)
        if needed > geometry.pool_bytes:
            raise ConfigError(
                f"the KV pool has {geometry.pool_bytes} bytes and request {name!r} alone needs "
                f"{needed} for its {tokens} tokens: raise {pool_option(config)}"
            )
    elif tokens > geometry.capacity_tokens:
        raise ConfigError(
            f"the KV pool holds {geometry.capacity_tokens} tokens and request "
            f"{name!r} alone fills {tokens}: raise {pool_option(config)}"
        )


def _try_allocator(prepared: Prepared, name: str) -> None:
    """Make an allocator to see whether its knobs make sense, and keep it for the run."""
    try:
        with time_limit(prepared.config.harness.variant_timeout_s):
            allocator = prepared.allocator(name)
            groups = sum(allocator.balance()) if allocator.pages_per_group else FEW_GROUPS
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException:  # whatever it is becomes a row with a status when the allocator is run
        return
    if groups < FEW_GROUPS:
        prepared.notes.append(
            f"{name}: a page-group holds {allocator.geometry.page_tokens} tokens, and the pool "
            f"{groups} of them: their size decides what fits (allocators.{name}.page_size, layout)"
        )
    prepared._unused[name] = allocator
