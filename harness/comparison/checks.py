"""Whether a configuration's values make sense: one line that names the option if not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from harness.command.ranges import OneOf, Positive, Range, Real, Whole, out_of_range
from harness.comparison.config import Config
from harness.cost.limits import check_hardware, check_memory, check_model
from harness.cost.shapes import CostError
from harness.engine.config import COMPILED, POLICIES, PREEMPTIONS, SAMPLING_MODES, SamplingSpec
from harness.errors import ConfigError
from harness.executors.spec import EXECUTORS, ExecutorSpec
from harness.observers.spec import check_recording
from harness.results.goal import check_goal
from harness.results.slo import check_counted, check_slo

#: GiB beyond any pool, and far from where numbers overflow
MOST_GIB = 1e9
#: tokens beyond any model's context
MOST_LEN = 2**24
#: sequences beyond any batch
MOST_SEQS = 2**16
#: max_num_seqs x max_len: block tables of 1 GiB with blocks of 16 tokens
MOST_TABLE_TOKENS = 2**31
SHARE = Real(0.0, 1.0)

RANGES: Mapping[str, Mapping[str, Range]] = {
    "": {
        "kv_memory_gib": Positive(MOST_GIB),
        "kv_tokens": Whole(1, 2**40),
        "seed": Whole(0, 2**63 - 1),
    },
    "engine": {
        "policy": OneOf(POLICIES),
        "preemption": OneOf(PREEMPTIONS),
        "compiled": OneOf(COMPILED),
        "max_num_seqs": Whole(1, MOST_SEQS),
        "max_num_batched_tokens": Whole(1, 2**31),
        "max_len": Whole(1, MOST_LEN),
        "host_gib": Real(0.0, MOST_GIB),
        "expected_output_tokens": Whole(0, MOST_LEN),
    },
    "sampling": {
        "mode": OneOf(SAMPLING_MODES),
        "n": Whole(1, MOST_SEQS),
        "width": Whole(1, MOST_SEQS),
        "beam_switch": SHARE,
        "draft_tokens": Whole(1, 1024),
        "acceptance_rate": SHARE,
        "draft_cost": SHARE,
        "temperature": Real(0.0, 1000.0),
        "top_p": Positive(1.0),
    },
    "slo": dict.fromkeys(("ttft_s", "itl_s", "tpot_s", "e2e_s"), Positive(1e9)),
    "executor": {"name": OneOf(EXECUTORS)},
    "harness": {"variant_timeout_s": Positive(1e9)},
}


def check(config: Config) -> None:
    """Raise `ConfigError` for a value that is out of range or contradicts another."""
    for group, ranges in RANGES.items():
        problem = out_of_range(group, getattr(config, group) if group else config, ranges)
        if problem is not None:
            raise ConfigError(problem)
    _check_shapes(config)
    _check_sampling(config.sampling)
    _check_pool(config)
    check_recording(config.harness, config.report, config.timeline)
    if config.harness.memory_map is not None and config.model.layer_groups:
        raise ConfigError(
            f"harness.memory_map shows a pool of equal slots, and those of the layer groups of "
            f"{config.model.name} differ: leave it out"
        )
    check_goal(config.sweep)
    check_slo(config.slo)
    check_counted(config.sweep.maximize, config.slo)
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
    if sampling.mode != "parallel" and (sampling.temperature, sampling.top_p) != (1.0, 1.0):
        raise ConfigError(
            "sampling.temperature and sampling.top_p are options of sampling.mode=parallel (with "
            "sampling.n=1 for one sample)"
        )


def _check_pool(config: Config) -> None:
    if config.kv_memory_gib is not None and config.kv_tokens is not None:
        raise ConfigError("give kv_memory_gib or kv_tokens, not both")
    sequences = config.engine.max_num_seqs
    tokens = sequences * config.max_len
    if tokens > MOST_TABLE_TOKENS:
        own = "" if config.engine.max_len else f", the context of {config.model.name},"
        raise ConfigError(
            f"engine.max_num_seqs={sequences} sequences of engine.max_len={config.max_len} "
            f"tokens{own} need block tables for {tokens} tokens, more than {MOST_TABLE_TOKENS}: "
            f"lower one of them, as engine.max_len={MOST_TABLE_TOKENS // sequences} or less does"
        )


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
