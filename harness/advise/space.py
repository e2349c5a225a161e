"""The knobs of a configuration: which there are, what each may be, and settings made of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.capacity.question import Variant, composed_of, variants_of
from harness.errors import ConfigError

#: allocators where the user names none, the first of which is a server's as it comes; not
#: contiguous_oracle and contiguous_pow2, which read the lengths of answers
ALLOCATORS = ("paged", "virtual", "contiguous_grow", "contiguous_max")
FIRST = ALLOCATORS[0]
ALLOCATOR = "allocator"


@dataclass(frozen=True)
class Knob:
    """name: how it is called here and in `search=`.  option: of a run, with {allocator} in it.

    what: it does, in a line.  values: that are tried beside the default, as typed.
    allocators, policies: that have it; none: all.  needs: a knob and values of it, any of which
    must be set for this one to do anything.
    """

    name: str
    option: str
    what: str
    values: tuple[str, ...] = ()
    allocators: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    needs: tuple[str, tuple[str, ...]] | None = None


#: those that are mostly worth most come first, for a search may be cut off by its budget
KNOBS = (
    Knob(ALLOCATOR, "allocator", "how KV memory is handed out", ()),
    Knob(
        "gpus",
        "hardware.count",
        "GPUs of a server, by tensor parallelism",
        ("1", "2", "4", "8"),
    ),
    Knob(
        "max_num_seqs",
        "engine.max_num_seqs",
        "sequences of a batch at most",
        ("64", "128", "256", "512", "1024"),
    ),
    Knob(
        "prefix_index",
        "allocators.{allocator}.prefix_index",
        "finds prompts that are in memory already",
        ("none", "hash", "radix"),
        ("paged", "virtual"),
    ),
    Knob(
        "token_budget",
        "engine.max_num_batched_tokens",
        "tokens of a step at most",
        ("512", "1024", "2048", "4096", "8192", "16384"),
    ),
    Knob(
        "block_size",
        "allocators.{allocator}.block_size",
        "tokens of a block",
        ("8", "16", "32", "64", "128"),
        ("paged",),
    ),
    Knob(
        "page_size",
        "allocators.{allocator}.page_size",
        "bytes that are mapped at once",
        ("64KiB", "256KiB", "2MiB"),
        ("virtual",),
    ),
    Knob(
        "layout",
        "allocators.{allocator}.layout",
        "tensors for each layer, or two that hold all",
        ("per_layer", "sliced"),
        ("virtual",),
    ),
    Knob(
        "eviction",
        "allocators.{allocator}.eviction",
        "which cached block gives way first",
        ("lru", "lfu", "fifo", "s3fifo"),
        ("paged",),
        needs=("prefix_index", ("hash", "radix")),
    ),
    Knob(
        "offload",
        "allocators.{allocator}.offload",
        "keeps evicted blocks in host memory",
        ("false", "true"),
        ("paged",),
        needs=("prefix_index", ("hash", "radix")),
    ),
    Knob(
        "preemption",
        "engine.preemption",
        "what happens to whoever must make room",
        ("recompute", "swap"),
        policies=("continuous", "static", "orca"),
    ),
    Knob(
        "expected_output",
        "engine.expected_output_tokens",
        "output that must fit for a request to be let in",
        ("0", "64", "256"),
        policies=("continuous", "static", "orca"),
    ),
    Knob(
        "watermark",
        "allocators.{allocator}.watermark",
        "share of the blocks that admission leaves free",
        ("0.0", "0.01", "0.05"),
        ("paged",),
    ),
)
BY_NAME = {knob.name: knob for knob in KNOBS}


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
    set.  sizes: values of max_num_seqs at which the pool is just full.
    """

    run: tuple[str, ...]
    knobs: tuple[Knob, ...]
    fixed: tuple[str, ...]
    allocators: tuple[str, ...]
    sizes: tuple[str, ...] = ()
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
        names = {_name(line) for line in (*changed, *more)}
        base = [line for line in self._base(allocator) if _name(line) not in names]
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
        kept = [line for line in self.run if _name(line) != ALLOCATOR]
        return [f"allocator=[{allocator}]", *(x for x in kept if not x.startswith(others))]

    def _config(self, allocator: str) -> DictConfig:
        if allocator not in self._configs:
            self._configs[allocator] = composed_of(tuple(self._base(allocator)))
        return self._configs[allocator]


def space_of(run: Sequence[str], search: Sequence[str] | None = None) -> Space:
    """Return what may be set in the configuration that the options of a run stand for.

    search: names of the knobs that are searched; None: all that the user has not set.
    Raises `ConfigError`, one line, for options that a run would refuse, for an unknown knob, and
    where nothing is left to be searched.
    """
    for name in search or ():
        if str(name) not in BY_NAME:  # the list may hold another one
            raise ConfigError(f"search: {name} is no knob; there are {', '.join(BY_NAME)}")
    typed = {_name(line) for line in run}
    first = [] if ALLOCATOR in typed else [f"allocator=[{FIRST}]"]
    named = _allocators([*first, *_own(run, typed)], typed)
    if ALLOCATOR not in typed:
        named = list(ALLOCATORS)
    space = Space(tuple(run), (), (), tuple(named))
    fixed = [knob.name for knob in KNOBS if _is_fixed(knob, typed, space.allocators)]
    for name in search or ():
        if name in fixed:
            raise ConfigError(f"search={name}: it is set by an option, which fixes it")
    space.knobs = tuple(
        knob for knob in KNOBS if knob.name not in fixed and (search is None or knob.name in search)
    )
    space.fixed = tuple(fixed)
    space.sizes = _sizes(space)
    if not space.neighbours(space.default):
        raise ConfigError("nothing is left to be searched: every knob is set by an option")
    return space


def _allocators(lines: list[str], typed: set[str]) -> list[str]:
    """Return the allocators of options that make sense, if need be on more GPUs."""
    more = [] if "hardware.count" in typed else list(BY_NAME["gpus"].values[1:])
    try:
        return [variant.allocator for variant in variants_of(lines)]
    except ConfigError:
        for gpus in more:
            try:
                return [v.allocator for v in variants_of([*lines, f"hardware.count={gpus}"])]
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


def _is_fixed(knob: Knob, typed: set[str], allocators: Sequence[str]) -> bool:
    if knob.name == ALLOCATOR:
        return ALLOCATOR in typed and len(allocators) == 1
    return any(knob.option.format(allocator=name) in typed for name in allocators)


def _sizes(space: Space) -> tuple[str, ...]:
    """Return how many requests of this workload the pool holds: of the longest, of the mean."""
    from harness.comparison import prepare

    served = (space.default, *(other for *_, other in space.neighbours(space.default)))
    variant = next((v for each in served if (v := space.variant(each)) is not None), None)
    if variant is None:
        return ()
    composed = copy.deepcopy(composed_of(variant.options))
    if composed.workload.arrivals in ("poisson", "gamma"):
        composed.workload.rate = math.inf
    prepared = prepare(composed)
    requests, geometry = prepared.requests, prepared.geometry
    tokens = requests.prompt_tokens + requests.output_tokens
    pool = geometry.capacity_bytes // geometry.bytes_per_token
    found = {int(pool // each) for each in (tokens.max(), tokens.mean())}
    most = 2 * int(BY_NAME["max_num_seqs"].values[-1])
    return tuple(str(each) for each in sorted(found) if 1 <= each <= most)


class _Absent:
    pass


_ABSENT = _Absent()


def _typed(value: object) -> str:
    """Return a value as one types it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name(line: str) -> str:
    return line.lstrip("+~").partition("=")[0]
