"""The typed configuration, and what is built from it once it is known to make sense."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from hydra.core.config_store import ConfigStore
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError

from allocators.base import Allocator, Geometry
from harness.cost.shapes import (
    CostError,
    HardwareSpec,
    ModelShape,
    kv_bytes_per_token,
    kv_heads_per_rank,
    kv_pool_bytes,
)
from harness.cost.spec import CostSpec
from harness.engine.config import POLICIES, PREEMPTIONS, SAMPLING_MODES, EngineSpec, SamplingSpec
from harness.errors import ConfigError
from harness.executors.spec import EXECUTORS, ExecutorSpec
from harness.observers.recorders import HarnessSpec, check_recording
from workloads.build import build
from workloads.errors import WorkloadError
from workloads.requests import RequestTable
from workloads.spec import WorkloadSpec

MIB, GIB = 2**20, 2**30
#: an exbibyte: beyond any pool, and far from where numbers overflow
MOST_GIB = 2**30


@dataclass
class Config:
    """Everything a run depends on; `allocators` maps a variant's name to its class and knobs."""

    allocators: dict[str, Any] = field(default_factory=dict)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    model: ModelShape = field(default_factory=ModelShape)
    hardware: HardwareSpec = field(default_factory=HardwareSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    executor: ExecutorSpec = field(default_factory=ExecutorSpec)
    cost_model: CostSpec = field(default_factory=CostSpec)
    kv_memory_gib: float | None = None
    kv_tokens: int | None = None
    seed: int = 0
    report: str = "html"
    harness: HarnessSpec = field(default_factory=HarnessSpec)


ConfigStore.instance().store(name="schema", node=Config)


def to_config(composed: DictConfig) -> Config:
    """Return the typed configuration of a composed one; raises `ConfigError` in one line."""
    known = list(Config.__dataclass_fields__)
    unknown = [str(key) for key in composed if key not in (*known, "hydra")]
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; there are {', '.join(known)}")
    # Plain data, so that a key which the schema does not have is refused and not carried along.
    own = OmegaConf.to_container(OmegaConf.masked_copy(composed, known), resolve=True)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), own))
    except ConfigKeyError as error:
        raise ConfigError(f"unknown option {error.full_key}") from error
    assert isinstance(config, Config)
    _check(config)
    if config.executor.name == "model":
        # Not imported by a simulated run, which needs no torch.
        from harness.executors.model.settings import settle

        config.model = settle(config.executor, config.model)
        _check_real(config)
    return config


def _check_real(config: Config) -> None:
    if config.hardware.count != 1:
        raise ConfigError(
            f"executor=model runs on one device, got hardware.count={config.hardware.count}"
        )
    beams = config.sampling.width if config.sampling.mode == "beam" else 1
    if beams > config.model.vocab:
        raise ConfigError(
            f"sampling.width={beams} beams need as many tokens, {config.model.name} has "
            f"{config.model.vocab}"
        )
    if max_len(config) > config.model.max_context:
        raise ConfigError(
            f"engine.max_len={max_len(config)} is beyond the {config.model.max_context} positions "
            f"of {config.model.name}, which executor=model really computes"
        )


def _check(config: Config) -> None:
    engine, sampling = config.engine, config.sampling
    _one_of("engine.policy", engine.policy, POLICIES)
    _one_of("sampling.mode", sampling.mode, SAMPLING_MODES)
    _one_of("executor.name", config.executor.name, EXECUTORS)
    for name, value in (
        ("engine.max_num_seqs", engine.max_num_seqs),
        ("engine.max_num_batched_tokens", engine.max_num_batched_tokens),
        ("engine.max_len", engine.max_len),
        ("sampling.n", sampling.n),
        ("sampling.width", sampling.width),
        ("sampling.draft_tokens", sampling.draft_tokens),
        ("kv_tokens", config.kv_tokens),
        ("hardware.count", config.hardware.count),
    ):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    for name in ("beam_switch", "acceptance_rate", "draft_cost"):
        value = getattr(sampling, name)
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"sampling.{name} must be from 0 to 1, got {value}")
    if config.executor.name != "model":
        for option in fields(ExecutorSpec):
            if option.name != "name" and getattr(config.executor, option.name) != option.default:
                raise ConfigError(f"executor.{option.name} is an option of executor=model")
    if not 0.0 <= sampling.temperature < math.inf:
        raise ConfigError(f"sampling.temperature must be at least 0, got {sampling.temperature}")
    if not 0.0 < sampling.top_p <= 1.0:
        raise ConfigError(f"sampling.top_p must be above 0 and at most 1, got {sampling.top_p}")
    if sampling.mode != "parallel" and (sampling.temperature, sampling.top_p) != (1.0, 1.0):
        raise ConfigError(
            "sampling.temperature and sampling.top_p are options of sampling.mode=parallel (with "
            "sampling.n=1 for one sample)"
        )
    _one_of("engine.preemption", engine.preemption, PREEMPTIONS)
    if engine.expected_output_tokens < 0:
        raise ConfigError(
            f"engine.expected_output_tokens must be at least 0, got {engine.expected_output_tokens}"
        )
    if engine.host_gib is not None and not (0 <= engine.host_gib <= MOST_GIB):
        raise ConfigError(
            f"engine.host_gib must be at least 0 and at most {MOST_GIB}, got {engine.host_gib}"
        )
    memory = config.kv_memory_gib
    if memory is not None and not (0 < memory <= MOST_GIB):
        raise ConfigError(
            f"kv_memory_gib must be a positive number and at most {MOST_GIB}, got {memory}"
        )
    if memory is not None and config.kv_tokens is not None:
        raise ConfigError("give kv_memory_gib or kv_tokens, not both")
    check_recording(config.harness, config.report)
    if config.seed < 0:
        raise ConfigError(f"seed must be at least 0, got {config.seed}")
    if sampling.sequences > engine.max_num_seqs:
        raise ConfigError(
            f"each request is {sampling.sequences} sequences, more than "
            f"engine.max_num_seqs={engine.max_num_seqs}"
        )
    if not config.allocators:
        raise ConfigError("no allocator is chosen: allocator='[paged,virtual]'")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def max_len(config: Config) -> int:
    """Return the longest sequence that is served, in tokens."""
    return config.engine.max_len or config.model.max_context


def make_geometry(config: Config) -> Geometry:
    """Return the pool that the configuration asks for; raises `ConfigError` if there is none."""
    model, ranks = config.model, config.hardware.count
    per_token = kv_bytes_per_token(model, ranks)
    pool_bytes = _left_for_kv(config) if _pool_is_open(config) else 0
    if config.kv_memory_gib is not None:
        pool_bytes = int(config.kv_memory_gib * GIB)
    capacity_tokens = config.kv_tokens or pool_bytes // per_token
    host_tokens = 0
    offload = any(knobs.get("offload") for knobs in config.allocators.values())
    if config.engine.preemption == "swap" or offload:
        host_gib = config.engine.host_gib
        host_tokens = capacity_tokens if host_gib is None else int(host_gib * GIB) // per_token
    return Geometry(
        capacity_tokens=capacity_tokens,
        host_tokens=host_tokens,
        max_seqs=config.engine.max_num_seqs,
        max_len=max_len(config),
        layers=model.layers,
        kv_heads=kv_heads_per_rank(model, ranks),
        head_dim=model.head_dim,
        dtype_bytes=model.dtype_bytes,
        ranks=ranks,
    )


def _left_for_kv(config: Config) -> int:
    if config.executor.name == "model":
        if config.executor.pool_mib is None:
            raise ConfigError(
                "executor.pool_mib=null is for a GPU: give it, kv_memory_gib or kv_tokens"
            )
        return int(config.executor.pool_mib * MIB)
    try:
        return kv_pool_bytes(config.model, config.hardware)
    except CostError as error:
        raise ConfigError(str(error)) from error


def _pool_is_open(config: Config) -> bool:
    return config.kv_memory_gib is None and config.kv_tokens is None


def _pool_option(config: Config) -> str:
    real = config.executor.name == "model" and _pool_is_open(config)
    return "executor.pool_mib" if real else "kv_memory_gib or kv_tokens"


def make_requests(config: Config, geometry: Geometry) -> RequestTable:
    """Return the requests; raises `ConfigError` if one can fit no allocator at all."""
    try:
        requests = build(config.workload, config.seed)
        requests = _first(requests, config.executor)
        requests = requests.limit(geometry.max_len, config.workload.too_long)
    except WorkloadError as error:
        raise ConfigError(str(error)) from error
    longest = requests.prompt_tokens + requests.output_tokens - 1
    at = int(longest.argmax())
    if longest[at] > geometry.capacity_tokens:
        raise ConfigError(
            f"the KV pool holds {geometry.capacity_tokens} tokens and request "
            f"{requests.name(at)!r} alone fills {longest[at]}: raise {_pool_option(config)}"
        )
    return requests


def _first(requests: RequestTable, executor: ExecutorSpec) -> RequestTable:
    n = executor.max_requests
    if executor.name != "model" or n is None or len(requests) <= n:
        return requests
    kept = requests.take(np.arange(n))
    kept.notes.append(
        f"executor=model serves the first {n} of {len(requests)} requests; "
        "executor.max_requests=null serves all"
    )
    return kept


def doubts(config: Config) -> list[str]:
    """Return what runs here but would not on a real server, a line each."""
    if config.executor.name == "model":
        return []
    found, model, hardware = [], config.model, config.hardware
    if model.heads % hardware.count:
        found.append(
            f"hardware.count={hardware.count} does not divide the {model.heads} heads of "
            f"{model.name}; real servers refuse that"
        )
    if not _pool_is_open(config):
        geometry = make_geometry(config)
        try:
            left = kv_pool_bytes(model, hardware)
        except CostError:
            left = 0
        if geometry.capacity_bytes > left:
            found.append(
                f"the KV pool of {geometry.capacity_bytes / GIB:.1f} GiB is more than "
                f"{hardware.count} x {hardware.name} leaves after the weights "
                f"({left / GIB:.1f} GiB)"
            )
    return found


def make_allocator(name: str, knobs: dict[str, Any], geometry: Geometry) -> Allocator:
    """Return the allocator `name`; raises `ConfigError` for a bad knob.

    Whatever the allocator itself refuses (`AllocatorError`) passes through: it is a result.
    """
    arguments = {key: value for key, value in knobs.items() if key != "_target_"}
    try:
        return get_class(knobs["_target_"])(geometry, **arguments)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"allocators.{name}: {error}") from error
    except (KeyError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"allocators.{name}: no allocator class ({reason})") from error
