"""What may be set in a configuration: its knobs, what each may be, and settings made of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.advise.knobs import (
    ALLOCATOR,
    ALLOCATORS,
    AUTO,
    BY_NAME,
    FIRST,
    KNOBS,
    KV_DTYPE,
    Knob,
)
from harness.capacity.question import Variant, composed_of, variants_of
from harness.command.arguments import option_name
from harness.errors import ConfigError


@dataclass(frozen=True)
class Setting:
    """Knobs that are not at their default, by name, with the value as typed; in order of names."""

    changed: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """Return the value of a knob; None: its default."""
        return dict(self.changed).get(name)

    @property
    def label(self) -> str:
        """What is changed, for a line of a table."""
        return ", ".join(f"{name}={value}" for name, value in self.changed) or "defaults"


@dataclass
class Space:
    """What may be set in a configuration, made by `space_of`.

    run: the options that the user typed.  knobs: that are searched.  fixed: knobs that the user
    set.  sizes: values of max_num_seqs at which the pool is just full.  kv_dtypes: that are
    allowed.
    """

    run: tuple[str, ...]
    knobs: tuple[Knob, ...]
    fixed: tuple[str, ...]
    allocators: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    kv_dtypes: tuple[str, ...] = (AUTO,)
    _variants: dict[Any, Variant | None] = field(default_factory=dict)
    _reasons: dict[Setting, str] = field(default_factory=dict)
    _configs: dict[str, DictConfig] = field(default_factory=dict)

    @property
    def default(self) -> Setting:
        return Setting()

    def allocator(self, setting: Setting) -> str:
        """Return the allocator of a setting."""
        return setting.get(ALLOCATOR) or self.allocators[0]

    def default_of(self, knob: Knob, allocator: str) -> str | None:
        """Return a knob's default as typed; None where this allocator does not have it."""
        if knob.name == ALLOCATOR:
            return self.allocators[0]
        value = OmegaConf.select(
            self._config(allocator), knob.option.format(allocator=allocator), default=_ABSENT
        )
        return None if value is _ABSENT else _typed(value)

    def value(self, setting: Setting, knob: Knob) -> str | None:
        """Return what a knob is in a setting; None where it does nothing."""
        if not self._applies(setting, knob):
            return None
        return setting.get(knob.name) or self.default_of(knob, self.allocator(setting))

    def set(self, setting: Setting, **values: str | None) -> Setting:
        """Return a setting with other values; what does nothing in it is left out.

        None: the knob's default.
        """
        wanted = dict(setting.changed) | values
        allocator = wanted.get(ALLOCATOR) or self.allocators[0]
        kept = {
            name: value
            for name, value in wanted.items()
            if value is not None and value != self.default_of(BY_NAME[name], allocator)
        }
        found = Setting(tuple(sorted(kept.items())))
        kept = {n: v for n, v in kept.items() if self._applies(found, BY_NAME[n])}
        return Setting(tuple(sorted(kept.items())))

    def neighbours(self, setting: Setting) -> list[tuple[Knob, str, Setting]]:
        """Return each setting that differs in one knob, with the knob and its value in it."""
        found = []
        for knob in self.knobs:
            now = self.value(setting, knob)
            if now is None:
                continue
            for value in self.values(knob, now):
                other = self.set(setting, **{knob.name: value})
                if value != now and other != setting and self.variant(other) is not None:
                    found.append((knob, value, other))
        return found

    def values(self, knob: Knob, now: str | None = None) -> tuple[str, ...]:
        """Return what a knob may be, where it is `now`."""
        if knob.name == ALLOCATOR:
            return self.allocators
        if knob.name == KV_DTYPE:
            return self.kv_dtypes
        if knob.name == "max_num_seqs":
            near = set()
            if now is not None and now not in knob.values:  # of no ladder: steps of a quarter
                near = {str(max(1, round(int(now) * by))) for by in (0.8, 1.25)}
            return tuple(sorted({*knob.values, *self.sizes, *near}, key=int))
        return knob.values

    def variant(self, setting: Setting, more: Sequence[str] = ()) -> Variant | None:
        """Return the runs of a setting, `more` options on top; None where it is refused."""
        key = (setting, tuple(more))
        if key not in self._variants:
            try:
                (self._variants[key],) = variants_of(self.lines(setting, more))
            except ConfigError as error:
                self._variants[key] = None
                self._reasons.setdefault(setting, str(error))
        return self._variants[key]

    def reason(self, setting: Setting) -> str:
        """Return why a setting is refused."""
        return self._reasons.get(setting, "refused")

    def lines(self, setting: Setting, more: Sequence[str] = ()) -> list[str]:
        """Return the options of a run of a setting, as typed."""
        allocator = self.allocator(setting)
        changed = [
            f"{BY_NAME[name].option.format(allocator=allocator)}={value}"
            for name, value in setting.changed
            if name != ALLOCATOR
        ]
        names = {option_name(line) for line in (*changed, *more)}
        base = [line for line in self._base(allocator) if option_name(line) not in names]
        return [*base, *changed, *more]

    def config(self, setting: Setting | None = None) -> DictConfig:
        """Return the composed configuration of a setting, by default of the defaults."""
        return composed_of(tuple(self.lines(setting or self.default)))

    def _applies(self, setting: Setting, knob: Knob) -> bool:
        allocator = self.allocator(setting)
        if knob.allocators and allocator not in knob.allocators:
            return False
        if knob.policies and self._config(allocator).engine.policy not in knob.policies:
            return False
        if self.default_of(knob, allocator) is None:
            return False
        if knob.needs is None:
            return True
        name, values = knob.needs
        return self.value(setting, BY_NAME[name]) in values

    def _base(self, allocator: str) -> list[str]:
        others = tuple(f"allocators.{name}." for name in self.allocators if name != allocator)
        kept = [line for line in self.run if option_name(line) != ALLOCATOR]
        return [f"allocator=[{allocator}]", *(x for x in kept if not x.startswith(others))]

    def _config(self, allocator: str) -> DictConfig:
        if allocator not in self._configs:
            self._configs[allocator] = composed_of(tuple(self._base(allocator)))
        return self._configs[allocator]


def space_of(
    run: Sequence[str],
    search: Sequence[str] | None = None,
    kv_dtypes: Sequence[str] = (AUTO,),
) -> Space:
    """Return what may be set in the configuration that the options of a run stand for.

    search: names of the knobs that are searched; None: all that the user has not set.
    kv_dtypes: what the KV may be stored in.
    Raises `ConfigError`, one line, for options that a run would refuse, for an unknown knob, for a
    type that there is not or that is not for this model, and where nothing is left to be searched.
    """
    for name in search or ():
        if str(name) not in BY_NAME:  # the list may hold another one
            raise ConfigError(f"search: {name} is no knob; there are {', '.join(BY_NAME)}")
    types = _kv_dtypes(kv_dtypes)
    if search is not None and KV_DTYPE in search and len(types) == 1:
        raise ConfigError(
            f"search={KV_DTYPE}: kv_dtypes allows {AUTO} alone; kv_dtypes=[{AUTO},fp8] adds fp8"
        )
    typed = {option_name(line) for line in run}
    first = [] if ALLOCATOR in typed else [f"allocator=[{FIRST}]"]
    named = _allocators([*first, *_own(run, typed)], typed, types)
    if ALLOCATOR not in typed:
        named = list(ALLOCATORS)
    space = Space(tuple(run), (), (), tuple(named), kv_dtypes=types)
    fixed = [knob.name for knob in KNOBS if _is_fixed(knob, typed, space.allocators)]
    for name in search or ():
        if name in fixed:
            raise ConfigError(f"search={name}: it is set by an option, which fixes it")
    space.knobs = tuple(
        knob for knob in KNOBS if knob.name not in fixed and (search is None or knob.name in search)
    )
    space.fixed = tuple(fixed)
    _check_kv_dtypes(space)
    space.sizes = _sizes(space)
    if not space.neighbours(space.default):
        if space.variant(space.default) is None:  # which no knob that is searched mends
            raise ConfigError(space.reason(space.default))
        raise ConfigError("nothing is left to be searched: every knob is set by an option")
    return space


def _allocators(lines: list[str], typed: set[str], kv_dtypes: Sequence[str]) -> list[str]:
    """Return the allocators of options that make sense, if need be on more GPUs, in other KV."""
    gpus = () if "hardware.count" in typed else BY_NAME["gpus"].values[1:]
    types = () if typed & {KV_DTYPE, BY_NAME[KV_DTYPE].alias} else kv_dtypes[1:]
    counts, kinds = [f"hardware.count={n}" for n in gpus], [f"{KV_DTYPE}={t}" for t in types]
    more = [*([each] for each in (*counts, *kinds)), *map(list, product(counts, kinds))]
    try:
        return [variant.allocator for variant in variants_of(lines)]
    except ConfigError:
        for each in more:
            try:
                return [v.allocator for v in variants_of([*lines, *each])]
            except ConfigError:
                continue
        raise


def _own(run: Sequence[str], typed: set[str]) -> list[str]:
    """Return options without those of allocators that are not the first."""
    if ALLOCATOR in typed:
        return list(run)
    return [
        x for x in run if not x.startswith("allocators.") or x.startswith(f"allocators.{FIRST}.")
    ]


def _kv_dtypes(given: Sequence[str]) -> tuple[str, ...]:
    """Return the types that are allowed, the default first, each once."""
    from harness.cost.kv import KV_FORMATS

    for name in given:
        if name not in KV_FORMATS:
            raise ConfigError(f"kv_dtypes must be of {', '.join(KV_FORMATS)}, got {name!r}")
    if AUTO not in given:
        raise ConfigError(
            f"kv_dtypes must hold {AUTO}, which the others are compared with; to set one: kv_dtype="
            f"{given[0] if given else 'fp8'}"
        )
    return tuple(dict.fromkeys((AUTO, *given)))


def _check_kv_dtypes(space: Space) -> None:
    """Raise `ConfigError`, one line, for types that are allowed in vain."""
    others = space.kv_dtypes[1:]
    if others and KV_DTYPE in space.fixed:
        raise ConfigError(f"kv_dtypes={others[0]}: kv_dtype is set by an option, which fixes it")
    if space.variant(space.default) is None:
        return
    for name in others:
        setting = space.set(space.default, **{KV_DTYPE: name})
        if space.variant(setting) is None:
            raise ConfigError(f"kv_dtypes={name}: {space.reason(setting)}")


def _is_fixed(knob: Knob, typed: set[str], allocators: Sequence[str]) -> bool:
    if knob.name == ALLOCATOR:
        return ALLOCATOR in typed and len(allocators) == 1
    return knob.alias in typed or any(knob.option.format(allocator=n) in typed for n in allocators)


def _sizes(space: Space) -> tuple[str, ...]:
    """Return how many requests of this workload the pool holds: of the longest, of the mean.

    In each type of KV that is tried.
    """
    served = (space.default, *(other for *_, other in space.neighbours(space.default)))
    first = next((each for each in served if space.variant(each) is not None), None)
    if first is None:
        return ()
    types = space.kv_dtypes if BY_NAME[KV_DTYPE] in space.knobs else (None,)
    settings = [space.set(first, **{KV_DTYPE: each}) if each else first for each in types]
    found = {size for each in dict.fromkeys(settings) for size in _held(space.variant(each))}
    most = 2 * int(BY_NAME["max_num_seqs"].values[-1])
    return tuple(str(each) for each in sorted(found) if 1 <= each <= most)


def _held(variant: Variant | None) -> set[int]:
    """Return how many requests the pool of a variant holds: of the longest, of the mean."""
    from harness.comparison import prepare
    from harness.cost.kv import needed_bytes

    if variant is None:
        return set()
    composed = copy.deepcopy(composed_of(variant.options))
    if composed.workload.arrivals in ("poisson", "gamma"):
        composed.workload.rate = math.inf
    prepared = prepare(composed)
    requests, geometry = prepared.requests, prepared.geometry
    tokens = requests.prompt_tokens + requests.output_tokens
    sizes = tokens.max(), tokens.mean()
    if geometry.layer_groups:
        needed = [needed_bytes(geometry.layer_groups, int(each)) for each in sizes]
        return {geometry.pool_bytes // each for each in needed}
    return {int(geometry.capacity_tokens // each) for each in sizes}


class _Absent:
    pass


_ABSENT = _Absent()


def _typed(value: object) -> str:
    """Return a value as one types it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
