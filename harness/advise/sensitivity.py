"""What would change the choice: the same question under another workload, and another clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from omegaconf import DictConfig

from harness.advise.evidence import Weighed, capacities, counts, ratio
from harness.advise.knobs import AUTO, KV_DTYPE
from harness.advise.race import Clock, Ring
from harness.advise.space import Setting, Space
from harness.capacity.answer import Interval
from harness.capacity.question import composed_of
from harness.comparison import prepare
from harness.cost.kv import kv_bytes_per_token

#: tokens of a common prefix where the workload has none
PREFIX_TOKENS = 512
#: the clock's own error: a server saturates up to so much earlier than simulated, and the host's
#: constants, fitted on one machine, are about as far off on another (docs/software.md)
KERNELS, HOST = 0.85, 1.25


@dataclass(frozen=True)
class Perturbation:
    """Another workload or clock.  name: what is other; lines: options of a run.

    kv_dtype: the type of KV whose runs alone have these options; empty: all have.
    """

    name: str
    lines: tuple[str, ...]
    kv_dtype: str = ""

    def of(self, setting: Setting) -> tuple[str, ...]:
        """Return the options of a setting's runs."""
        return self.lines if self.kv_dtype in ("", setting.get(KV_DTYPE)) else ()


@dataclass
class Answer:
    """What a perturbation does.

    times: the capacity of what is advised, against before; None: it has no rate, for `reason`.
    flips: a setting that is then better than the advised one, with how many times as good it is.
    idle: changed knobs that are then within noise of their default.
    """

    perturbation: Perturbation
    times: float | None = None
    reason: str | None = None
    flips: list[tuple[Setting, Interval]] = field(default_factory=list)
    idle: list[tuple[str, Interval]] = field(default_factory=list)


def perturbations(config: DictConfig) -> tuple[list[Perturbation], list[str]]:
    """Return what else is asked of a configuration, and what cannot be, a line each."""
    found: list[Perturbation] = []
    missing: list[str] = []
    workload = config.workload
    is_trace = workload.kind == "trace" or workload.path is not None
    if is_trace:
        missing.append("variance of lengths, common prefix: those of a trace are its own")
        found.append(Perturbation("arrivals at random", ("workload.arrivals=poisson",)))
    else:
        _lengths(workload, found, missing)
        even = float(workload.burstiness)
        found.append(
            Perturbation(
                "bursts (4 x the variance of gaps)", (f"workload.burstiness={even / 4:g}",)
            )
        )
        _prefixes(workload, found)
    if config.cost_model.name == "roofline":
        _clock(config, found)
    else:
        missing.append("the clock's error: a calibrated clock was measured")
    return found, missing


def kv_kernels(space: Space, setting: Setting) -> list[Perturbation]:
    """Return the question whether a narrower KV that is advised is so for its room alone.

    It is priced as read in less time; a kernel that widens the numbers first gains none.
    """
    name, variant = setting.get(KV_DTYPE), space.variant(setting)
    if name is None or variant is None:
        return []
    config = prepare(composed_of(variant.options)).config
    wide = kv_bytes_per_token(replace(config.model, kv_dtype=AUTO))
    share = kv_bytes_per_token(config.model) / wide
    if share >= 1:
        return []
    lines = (
        "hardware.decode_bandwidth_efficiency="
        f"{config.hardware.decode_bandwidth_efficiency * share:.4g}",
        "cost_model.prefill_bandwidth_efficiency="
        f"{config.cost_model.prefill_bandwidth_efficiency * share:.4g}",
    )
    return [Perturbation(f"kernels that read {name} no faster", lines, name)]


def _lengths(workload: DictConfig, found: list[Perturbation], missing: list[str]) -> None:
    for word, factor in (("half", 0.5), ("1.5 x", 1.5)):
        lines = []
        for part in ("prompt", "output"):
            spec = workload[part]
            if spec.kind == "lognormal" and spec.sigma is not None:
                lines.append(f"workload.{part}.sigma={spec.sigma * factor:g}")
            elif spec.kind == "normal" and spec.std is not None:
                lines.append(f"workload.{part}.std={spec.std * factor:g}")
            elif spec.kind == "uniform" and spec.high is not None and factor < 1:
                quarter = (spec.high - spec.low) // 4
                lines += [
                    f"workload.{part}.low={spec.low + quarter}",
                    f"workload.{part}.high={spec.high - quarter}",
                ]
        if lines:
            found.append(Perturbation(f"lengths that vary {word} as much", tuple(lines)))
    if not any(each.name.startswith("lengths") for each in found):
        missing.append("variance of lengths: these lengths have none that could be scaled")


def _prefixes(workload: DictConfig, found: list[Perturbation]) -> None:
    tokens = workload.prefix_tokens
    if tokens:
        found.append(Perturbation("no common prefix", ("workload.prefix_tokens=0",)))
        found.append(
            Perturbation("a common prefix twice as long", (f"workload.prefix_tokens={2 * tokens}",))
        )
    else:
        found.append(
            Perturbation(
                f"a common prefix of {PREFIX_TOKENS} tokens",
                (f"workload.prefix_tokens={PREFIX_TOKENS}",),
            )
        )
    if workload.kind == "conversation" and workload.history == "keep":
        found.append(Perturbation("history that is not found again", ("workload.history=drop",)))


def _clock(config: DictConfig, found: list[Perturbation]) -> None:
    cost, software = config.cost_model, config.software
    slower = [
        f"cost_model.{name}={cost[name] * KERNELS:.4g}"
        for name in (
            "gemm_efficiency",
            "weight_bandwidth_efficiency",
            "prefill_efficiency",
        )
    ]
    slower.append(
        "hardware.decode_bandwidth_efficiency="
        f"{config.hardware.decode_bandwidth_efficiency * KERNELS:.4g}"
    )
    found.append(Perturbation(f"kernels at {KERNELS:.0%} of their speed", tuple(slower)))
    host = [
        f"software.{name}={software[name] * HOST:.6g}"
        for name in ("step_us", "sequence_us", "sampling_us", "workers_us", "token_us")
        if software[name]
    ]
    if host:
        found.append(Perturbation(f"a host that takes {HOST:g} x the time", tuple(host)))


def ask(
    ring: Ring,
    weighed: Weighed,
    rivals: Sequence[Setting],
    near: float,
    seeds: int,
    clock: Clock,
    told: Callable[[Answer], None],
) -> list[str]:
    """Ask each perturbation whether what is advised is still best; `told` of each answer.

    rivals: settings that came near it.  near: its requests a second and GPU.
    Returns what was not looked at, a line each.
    """
    asked, missing = perturbations(ring.space.config(weighed.setting))
    asked += kv_kernels(ring.space, weighed.setting)
    for place, each in enumerate(asked):
        if not clock.has(1.0):
            return [*missing, *(f"{p.name}: no time left" for p in asked[place:])]
        told(_answer(ring, weighed, each, rivals, near, seeds))
    return missing


def _answer(
    ring: Ring,
    weighed: Weighed,
    each: Perturbation,
    rivals: Sequence[Setting],
    near: float,
    seeds: int,
) -> Answer:
    answer, space, now = Answer(each), ring.space, weighed.setting
    if space.variant(now, each.of(now)) is None:
        answer.reason = "this workload cannot be so"
        return answer
    capacity = capacities(ring, [now], 1, near, each.of)[now]
    if not capacity.held:
        answer.reason = capacity.reason
        return answer
    at = (capacity.held[0].below.rate or 0.0) / capacity.variant.gpus
    before = (weighed.capacity.held[0].below.rate or 0.0) / weighed.capacity.variant.gpus
    answer.times = at / before
    without = {space.set(now, **{name: None}): name for name, _ in now.changed}
    # A knob that is worth it still must not reach the rate without it; a rival must not pass it.
    tests = [(other, at / (1 + ring.at_least)) for other in without]
    tests += [(o, at * (1 + ring.at_least)) for o in rivals if o not in without and o != now]
    kept = [(o, r, v) for o, r in tests if (v := space.variant(o, each.of(o))) is not None]
    seed = capacity.variant.seed
    seen = ring.runner.observe([ring.probe(v, rate, seed) for _, rate, v in kept])
    suspects = [setting for (setting, _, _), o in zip(kept, seen, strict=True) if ring.holds(o)]
    if suspects:
        found = capacities(ring, [now, *suspects], seeds, at, each.of)
        for other in suspects:
            if not found[other].held or not found[now].held:
                continue
            gain = ratio(found[other], found[now])
            if counts(gain, ring.at_least):
                answer.flips.append((other, gain))
            elif other in without and not counts(ratio(found[now], found[other]), ring.at_least):
                answer.idle.append((without[other], ratio(found[now], found[other])))
    return answer
