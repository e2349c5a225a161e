"""Whether a configuration's values make sense: one line that names the option if not."""

from __future__ import annotations

import math
from dataclasses import fields

from harness.cost.limits import check_hardware, check_memory, check_model
from harness.cost.shapes import CostError
from harness.engine.config import POLICIES, PREEMPTIONS, SAMPLING_MODES, SamplingSpec
from harness.errors import ConfigError
from harness.executors.spec import EXECUTORS, ExecutorSpec
from harness.observers.spec import check_recording
from harness.run.config import Config

#: an exbibyte: beyond any pool, and far from where numbers overflow
MOST_GIB = 2**30


def check(config: Config) -> None:
    """Raise `ConfigError` for a value that is out of range or contradicts another."""
    for name, value, allowed in (
        ("engine.policy", config.engine.policy, POLICIES),
        ("engine.preemption", config.engine.preemption, PREEMPTIONS),
        ("sampling.mode", config.sampling.mode, SAMPLING_MODES),
        ("executor.name", config.executor.name, EXECUTORS),
    ):
        if value not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    _check_counts(config)
    _check_shapes(config)
    _check_sampling(config.sampling)
    _check_memory(config)
    check_recording(config.harness, config.report)
    if not config.is_real:
        for option in fields(ExecutorSpec):
            if option.name != "name" and getattr(config.executor, option.name) != option.default:
                raise ConfigError(f"executor.{option.name} is an option of executor=model")
    if config.sampling.sequences > config.engine.max_num_seqs:
        raise ConfigError(
            f"each request is {config.sampling.sequences} sequences, more than "
            f"engine.max_num_seqs={config.engine.max_num_seqs}"
        )
    if not config.allocators:
        raise ConfigError("no allocator is chosen: allocator='[paged,virtual]'")
    for name, knobs in config.allocators.items():
        if not isinstance(knobs, dict) or not isinstance(knobs.get("_target_"), str):
            raise ConfigError(
                f"allocators.{name} must be its class and knobs, {{_target_: MODULE.CLASS, ...}}, "
                f"got {knobs!r}"
            )
    if not config.workload.name.isprintable() or {"/", "\\"} & set(config.workload.name):
        raise ConfigError(
            "workload.name is part of a directory's name and holds no slash, got "
            f"{config.workload.name!r}"
        )


def _check_counts(config: Config) -> None:
    engine, sampling = config.engine, config.sampling
    for name, value, least in (
        ("engine.max_num_seqs", engine.max_num_seqs, 1),
        ("engine.max_num_batched_tokens", engine.max_num_batched_tokens, 1),
        ("engine.max_len", engine.max_len, 1),
        ("sampling.n", sampling.n, 1),
        ("sampling.width", sampling.width, 1),
        ("sampling.draft_tokens", sampling.draft_tokens, 1),
        ("kv_tokens", config.kv_tokens, 1),
        ("engine.expected_output_tokens", engine.expected_output_tokens, 0),
        ("seed", config.seed, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")


def _check_shapes(config: Config) -> None:
    try:
        check_model(config.model)
        check_hardware(config.hardware)
        check_memory(config.memory)
    except CostError as error:
        raise ConfigError(str(error)) from error
    model = config.model
    # What a checkpoint holds is not known yet: `check_real` looks at that.
    if not config.is_real and model.learned_positions and config.max_len > model.max_context:
        raise ConfigError(
            f"engine.max_len={config.max_len} is beyond the {model.max_context} positions that "
            f"{model.name} has learned: at most engine.max_len={model.max_context}"
        )


def _check_sampling(sampling: SamplingSpec) -> None:
    for name in ("beam_switch", "acceptance_rate", "draft_cost"):
        value = getattr(sampling, name)
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"sampling.{name} must be from 0 to 1, got {value}")
    if not 0.0 <= sampling.temperature < math.inf:
        raise ConfigError(f"sampling.temperature must be at least 0, got {sampling.temperature}")
    if not 0.0 < sampling.top_p <= 1.0:
        raise ConfigError(f"sampling.top_p must be above 0 and at most 1, got {sampling.top_p}")
    if sampling.mode != "parallel" and (sampling.temperature, sampling.top_p) != (1.0, 1.0):
        raise ConfigError(
            "sampling.temperature and sampling.top_p are options of sampling.mode=parallel (with "
            "sampling.n=1 for one sample)"
        )


def _check_memory(config: Config) -> None:
    host_gib, kv_gib = config.engine.host_gib, config.kv_memory_gib
    if host_gib is not None and not (0 <= host_gib <= MOST_GIB):
        raise ConfigError(
            f"engine.host_gib must be at least 0 and at most {MOST_GIB}, got {host_gib}"
        )
    if kv_gib is not None and not (0 < kv_gib <= MOST_GIB):
        raise ConfigError(
            f"kv_memory_gib must be a positive number and at most {MOST_GIB}, got {kv_gib}"
        )
    if kv_gib is not None and config.kv_tokens is not None:
        raise ConfigError("give kv_memory_gib or kv_tokens, not both")


def check_real(config: Config) -> None:
    """Raise `ConfigError` for what a real run, its model settled, cannot do."""
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
    if config.max_len > config.model.max_context:
        raise ConfigError(
            f"engine.max_len={config.max_len} is beyond the {config.model.max_context} positions "
            f"of {config.model.name}, which executor=model really computes"
        )
