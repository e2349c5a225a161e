"""The typed configuration: the schema that Hydra holds `conf/` and the command line to."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, make_dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from harness.cost.hf.read import AS_FILE, resolved
from harness.cost.memory import MemorySpec
from harness.cost.shapes import CostError, HardwareSpec, ModelShape
from harness.cost.software import SoftwareSpec
from harness.cost.spec import CostSpec
from harness.engine.config import EngineSpec, SamplingSpec
from harness.errors import ConfigError
from harness.executors.spec import ExecutorSpec
from harness.observers.spec import HarnessSpec
from harness.results.goal import SweepSpec
from harness.results.slo import SloSpec
from workloads.spec import WorkloadSpec


@dataclass
class Config:
    """Everything a run depends on; `allocators` maps a variant's name to its class and knobs.

    `sweep` is the one section that no run depends on, and is not kept with its results.
    """

    allocators: dict[str, Any] = field(default_factory=dict)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    model: ModelShape = field(default_factory=ModelShape)
    hardware: HardwareSpec = field(default_factory=HardwareSpec)
    memory: MemorySpec = field(default_factory=MemorySpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    executor: ExecutorSpec = field(default_factory=ExecutorSpec)
    cost_model: CostSpec = field(default_factory=CostSpec)
    software: SoftwareSpec = field(default_factory=SoftwareSpec)
    kv_memory_gib: float | None = None
    kv_tokens: int | None = None
    kv_dtype: str = "auto"
    seed: int = 0
    report: str = "html"
    timeline: str = "auto"
    slo: SloSpec = field(default_factory=SloSpec)
    harness: HarnessSpec = field(default_factory=HarnessSpec)
    sweep: SweepSpec = field(default_factory=SweepSpec)

    @property
    def is_real(self) -> bool:
        """Whether a real decoder serves, and not a simulated clock."""
        return self.executor.name == "model"

    @property
    def pool_is_open(self) -> bool:
        """Whether no size is given for the KV pool: it is what the hardware leaves."""
        return self.kv_memory_gib is None and self.kv_tokens is None

    @property
    def max_len(self) -> int:
        """The longest sequence that is served, in tokens."""
        return self.engine.max_len or self.model.max_context


#: Hydra's name of a job
JOB_NAME = "job"

ConfigStore.instance().store(name="schema", node=Config)
OPTIONS = tuple(Config.__dataclass_fields__)


def compose(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """Return the configuration that a command line of these overrides stands for.

    `with_hydra` adds Hydra's own settings, such as the run directory.
    """
    derived = _derived(overrides, with_hydra)
    return derived if derived is not None else _composed(overrides, with_hydra)


def _composed(overrides: tuple[str, ...], with_hydra: bool) -> DictConfig:
    with initialize_config_module("conf", job_name=JOB_NAME, version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides), return_hydra_config=with_hydra)


def _derived(overrides: tuple[str, ...], with_hydra: bool) -> DictConfig | None:
    """Return what Hydra composes, from a configuration with the same files; None: ask Hydra.

    Hydra reads files by the overrides that name groups, and then sets the values of the others in
    their order.  The first takes 0.1 s and is done once for each choice of files.
    """
    try:
        parsed = [_parsed(line) for line in overrides]
    except HydraException:
        return None
    chosen = [o for o in parsed if _is_group(o.key_or_group)]
    values = [o for o in parsed if o not in chosen]
    if not all(_is_value(o) and (with_hydra or not o.is_hydra_override()) for o in values):
        return None
    if any(o.is_sweep_override() for o in chosen):
        return None
    composed = copy.deepcopy(_with_files(tuple(str(o.input_line) for o in chosen), with_hydra))
    try:
        for override in values:
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        return None  # Hydra says what is wrong
    if with_hydra:
        _note_overrides(composed.hydra, parsed)
    return composed


#: what may be set of Hydra's own: nothing that chooses files, or decides what else is set
HYDRAS = ("hydra.run.dir", "hydra.sweep.dir")


def _is_value(override: Override) -> bool:
    """Whether an override sets a value that there is, once all files have been read."""
    key, changes = override.key_or_group, override.type is OverrideType.CHANGE
    if "/" in key or override.package is not None or override.is_sweep_override():
        return False
    return changes and (key in HYDRAS or not override.is_hydra_override())


def _note_overrides(hydra: DictConfig, overrides: list[Override]) -> None:
    """Note in Hydra's own settings what the command line said, and where it was said."""
    own = [str(o.input_line) for o in overrides if o.is_hydra_override()]
    others = [o for o in overrides if not o.is_hydra_override()]
    hydra.overrides.hydra.extend(own)
    hydra.overrides.task = [str(o.input_line) for o in others]
    hydra.runtime.cwd = os.getcwd()
    form = hydra.job.config.override_dirname
    named = sorted(str(o.input_line) for o in others if o.key_or_group not in form.exclude_keys)
    hydra.job.override_dirname = form.item_sep.join(named).replace("=", form.kv_sep)


@lru_cache(maxsize=64)
def _with_files(overrides: tuple[str, ...], with_hydra: bool) -> DictConfig:
    return _composed(overrides, with_hydra)


@lru_cache(maxsize=256)
def _parsed(line: str) -> Override:
    return OverridesParser.create().parse_override(line)


@cache
def _is_group(key: str) -> bool:
    return "@" not in key and (files("conf") / key).is_dir()


def plain_options(composed: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Return a composed configuration as plain data, without Hydra's own settings."""
    if "hydra" not in composed:
        return OmegaConf.to_container(composed, resolve=resolve)
    # Part by part: a copy without Hydra's settings takes several times as long.
    found = {}
    for name in composed:
        if name in OPTIONS:
            part = "???" if OmegaConf.is_missing(composed, name) else composed[name]
            is_tree = OmegaConf.is_config(part)
            found[name] = OmegaConf.to_container(part, resolve=resolve) if is_tree else part
    return found


def run_options(composed: DictConfig) -> dict[str, Any]:
    """Return what a run depends on, resolved, as it is kept with the results."""
    options = plain_options(composed)
    options.pop("sweep", None)
    return options


@cache
def _schema() -> DictConfig:
    """Return the schema, which is never changed; making it takes longer than using it."""
    return OmegaConf.structured(Config)


def to_config(composed: DictConfig) -> Config:
    """Return the typed configuration; raises `ConfigError` for an option that there is not.

    The shape of `model=hf` is read from its file.  Whether the values make sense is not looked at
    here (`harness.comparison.checks`).
    """
    config = _as_typed(composed)
    if config.model.path or config.model.name == AS_FILE.name:
        try:
            config.model = resolved(config.model)
        except CostError as error:
            raise ConfigError(f"model.path: {error}") from error
    return config


def _as_typed(composed: DictConfig) -> Config:
    unknown = [str(key) for key in composed if key not in (*OPTIONS, "hydra")]
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; there are {', '.join(OPTIONS)}")
    # Plain data, so that a key which the schema does not have is refused and not carried along.
    given = plain_options(composed)
    try:
        config = Config(**{name: _typed(name, part) for name, part in given.items()})
    except OmegaConfBaseException:
        config = _typed_together(given)
    return config


def _typed_together(given: dict[str, Any]) -> Config:
    """Type all at once, so that what is wrong is said of an option by its full name."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(_schema(), given))
    except ConfigKeyError as error:
        raise ConfigError(f"unknown option {error.full_key}") from error
    assert isinstance(config, Config)
    return config


#: of the last sections that were typed: from their name and text
_TYPED: dict[tuple[str, str], Any] = {}
KEPT_SECTIONS = 256


def _typed(name: str, part: Any) -> Any:
    """Return a section as an instance of its schema, or an option of the top level.

    Configurations differ in few sections, and typing all takes twenty times as long as a run's
    other checks: what was typed before is copied.
    """
    key = name, repr(part)
    if key not in _TYPED:
        if len(_TYPED) == KEPT_SECTIONS:
            _TYPED.pop(next(iter(_TYPED)))
        typed = OmegaConf.to_object(OmegaConf.merge(_schema_of(name), {name: part}))
        _TYPED[key] = getattr(typed, name)
    return copy.deepcopy(_TYPED[key])


@cache
def _schema_of(name: str) -> DictConfig:
    """Return the schema of one section, or of one option of the top level."""
    own = Config.__dataclass_fields__[name]
    alone = field(default=own.default, default_factory=own.default_factory)
    return OmegaConf.structured(
        make_dataclass("Config", [(name, get_type_hints(Config)[name], alone)])
    )
