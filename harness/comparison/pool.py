"""The KV pool that a configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence

from allocators.base import Geometry
from harness.comparison.config import Config
from harness.cost.kv import kv_bytes_per_token, kv_geometry
from harness.cost.memory import kv_pool_bytes
from harness.cost.shapes import CostError
from harness.engine.schedulers import SCHEDULERS
from harness.errors import ConfigError

MIB, GIB = 2**20, 2**30
#: policies whose steps compute all prompts that have room
UNBOUNDED = ("static", "orca")


def make_geometry(config: Config) -> Geometry:
    """Return the pool that the configuration asks for; raises `ConfigError` if there is none."""
    model, ranks = config.model, config.hardware.count
    per_token = kv_bytes_per_token(model, ranks)
    pool_bytes = _left_for_kv(config) if config.pool_is_open else 0
    if config.kv_memory_gib is not None:
        pool_bytes = int(config.kv_memory_gib * GIB)
    if config.kv_tokens is not None:
        pool_bytes = config.kv_tokens * per_token
    capacity_tokens = pool_bytes // per_token
    host_tokens = 0
    offload = any(knobs.get("offload") for knobs in config.allocators.values())
    if config.engine.preemption == "swap" or offload:
        host_gib = config.engine.host_gib
        host_tokens = capacity_tokens if host_gib is None else int(host_gib * GIB) // per_token
    return kv_geometry(
        model,
        ranks,
        capacity_tokens=capacity_tokens,
        host_tokens=host_tokens,
        max_seqs=config.engine.max_num_seqs,
        max_len=config.max_len,
        pool_bytes=pool_bytes,
        step_tokens=_step_tokens(config),
    )


def _step_tokens(config: Config) -> int:
    """Return the most tokens that a step computes; 0 where the policy has no bound."""
    return 0 if config.engine.policy in UNBOUNDED else largest_step_tokens(config)


def _left_for_kv(config: Config) -> int:
    if config.is_real:
        if config.executor.pool_mib is None:
            raise ConfigError(
                "executor.pool_mib=null is for a GPU: give it, kv_memory_gib or kv_tokens"
            )
        return int(config.executor.pool_mib * MIB)
    try:
        return _hardware_leaves(config)
    except CostError as error:
        raise ConfigError(str(error)) from error


def _hardware_leaves(config: Config) -> int:
    return kv_pool_bytes(
        config.model,
        config.hardware,
        config.memory,
        largest_step_tokens(config),
        config.engine.max_num_seqs,
    )


def largest_step_tokens(config: Config) -> int:
    """Return the tokens of the step that a server sizes its activations by.

    Where a policy has no bound of its own, that of a continuous one is taken.
    """
    policy = config.engine.policy
    bounded = SCHEDULERS["continuous" if policy in UNBOUNDED else policy]
    default = bounded.default_budget_tokens(config.max_len)
    return config.engine.max_num_batched_tokens or default


def pool_option(config: Config) -> str:
    """Return the option that makes the pool larger."""
    real = config.is_real and config.pool_is_open
    return "executor.pool_mib" if real else "kv_memory_gib or kv_tokens"


def doubts(config: Config, geometry: Geometry) -> list[str]:
    """Return what runs here but would not on a real server, a line each."""
    if config.is_real:
        return []
    found, model, hardware = [], config.model, config.hardware
    if model.heads % hardware.count:
        found.append(
            f"hardware.count={hardware.count} does not divide the {model.heads} heads of "
            f"{model.name}; real servers refuse that"
        )
    if config.max_len > model.max_context:
        found.append(
            f"engine.max_len={config.max_len} is beyond the {model.max_context} positions of "
            f"{model.name}; vLLM refuses that unless VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
        )
    if not config.pool_is_open:
        try:
            left_bytes = _hardware_leaves(config)
        except CostError:
            left_bytes = 0
        if geometry.capacity_bytes > left_bytes:
            found.append(
                f"the KV pool of {geometry.capacity_bytes / GIB:.1f} GiB is more than "
                f"{hardware.count} x {hardware.name} leaves for it "
                f"({left_bytes / GIB:.1f} GiB with memory={config.memory.name})"
            )
    return found


def unmeasured_blocks(config: Config, sizes: Sequence[int]) -> list[str]:
    """Return which block sizes lie beyond those of a calibration, `sizes`, a line each."""
    asked = {name: knobs.get("block_size") for name, knobs in config.allocators.items()}
    return [
        f"{name}: attention was measured with blocks of {', '.join(map(str, sizes))} tokens, so a "
        f"step with blocks of {size} takes as long as with {nearest}"
        for name, size in asked.items()
        if isinstance(size, int) and (nearest := min(max(size, sizes[0]), sizes[-1])) != size
    ]
