"""The sums: the budget by GPUs, and what fits by GPUs, KV type and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from allocators.layers import LayerGroup
from harness.cli.checks import WRONG_INPUT, explained
from harness.cli.installed import search_path_override
from harness.cli.overrides import parsed, single_point
from harness.comparison.checks import check
from harness.comparison.config import Config, compose, to_config
from harness.comparison.pool import largest_step_tokens, make_geometry
from harness.cost import CostError, MemoryBudget, ModelShape, memory_budget, parameter_count
from harness.cost.kv import layer_groups, needed_bytes, settled_layers
from harness.cost.limits import check_model
from harness.errors import ConfigError
from harness.size.options import Asked

#: what is sized unless told otherwise: the rules of a server of today
DEFAULTS = ("engine=chunked",)


@dataclass(frozen=True)
class Fit:
    """How much of one length fits: `sequences`, each of `needed_bytes` at least."""

    tokens: int
    needed_bytes: int
    sequences: int


@dataclass(frozen=True)
class Row:
    """One number of GPUs with one KV type; bytes over all of them.

    fits: one for each length that the model can have.  refusal: why nothing fits, if so.
    """

    gpus: int
    kv_dtype: str
    pool_bytes: int
    groups: tuple[LayerGroup, ...]
    fits: tuple[Fit, ...] = ()
    refusal: str | None = None


@dataclass
class Sized:
    """All that the command prints; budgets and rows in the order of what was asked."""

    config: Config
    parameters: int
    budgets: list[MemoryBudget] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def size(asked: Asked) -> Sized:
    """Return the sums.  Raises `ConfigError`, one line, for options that cannot be."""
    config = _config(asked)
    if config.engine.max_len is None:
        config.engine.max_len = min(config.model.max_context, max(asked.lengths))
    check(config)
    sized = Sized(config, parameter_count(config.model))
    for gpus in asked.counts:
        config = _with(config, gpus, config.model.kv_dtype)
        sized.budgets.append(_budget(config))
        if config.model.heads % gpus:
            sized.notes.append(
                f"{gpus} GPUs do not divide the {config.model.heads} heads of "
                f"{config.model.name}; real servers refuse that"
            )
        for kv_dtype in asked.kv_dtypes:
            sized.rows.append(_row(_with(config, gpus, kv_dtype), asked.lengths))
    _note_what_is_missing(sized, asked)
    return sized


def _config(asked: Asked) -> Config:
    overrides = []
    lines = [*DEFAULTS, *asked.run]
    try:
        overrides = parsed(lines)
        single_point(overrides)
        return to_config(compose(*lines, *search_path_override(lines)))
    except WRONG_INPUT as error:
        raise ConfigError(explained(error, lines, overrides)) from error


def _with(config: Config, gpus: int, kv_dtype: str) -> Config:
    return replace(
        config,
        hardware=replace(config.hardware, count=gpus),
        model=replace(config.model, kv_dtype=kv_dtype),
    )


def _budget(config: Config) -> MemoryBudget:
    return memory_budget(
        config.model,
        config.hardware,
        config.memory,
        largest_step_tokens(config),
        config.engine.max_num_seqs,
    )


def groups_of(model: ModelShape, gpus: int) -> tuple[LayerGroup, ...]:
    """Return the layer groups, of a uniform model the one that it is."""
    return layer_groups(replace(model, layer_groups=settled_layers(model)), gpus)


def _row(config: Config, lengths: Sequence[int]) -> Row:
    model, gpus = config.model, config.hardware.count
    try:
        check_model(model)
    except CostError as error:
        raise ConfigError(str(error)) from error
    groups = groups_of(model, gpus)
    try:
        pool_bytes = make_geometry(config).capacity_bytes
    except ConfigError as error:
        return Row(gpus, model.kv_dtype, 0, groups, refusal=str(error))
    fits = []
    for tokens in lengths:
        if tokens <= model.max_context:
            needed = needed_bytes(groups, tokens)
            fits.append(Fit(tokens, needed, pool_bytes // needed))
    return Row(gpus, model.kv_dtype, pool_bytes, groups, tuple(fits))


def _note_what_is_missing(sized: Sized, asked: Asked) -> None:
    """Say what the tables leave out, a line each."""
    model, hardware = sized.config.model, sized.config.hardware
    refused = {row.gpus: row.refusal for row in sized.rows if row.refusal is not None}
    if len(refused) == len(asked.counts):
        sized.notes.append(str(refused[max(refused)]))
    elif refused:
        counts = ", ".join(map(str, refused))
        sized.notes.append(f"nothing is left for the KV cache on {counts} x {hardware.name}")
    beyond = [tokens for tokens in asked.lengths if tokens > model.max_context]
    if beyond:
        sized.notes.append(
            f"{', '.join(map(str, beyond))} tokens are beyond the {model.max_context} of "
            f"{model.name}"
        )
