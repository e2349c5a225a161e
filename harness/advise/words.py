"""The answer in sentences: a paragraph for a design document, and a line for each of its parts."""

from __future__ import annotations

from statistics import fmean

from harness.advise import flags
from harness.advise.advice import Advice
from harness.advise.evidence import Around, Worth, per_gpu
from harness.advise.knobs import ALLOCATOR, AUTO, BY_NAME, KV_DTYPE
from harness.advise.sensitivity import Answer
from harness.advise.space import Setting
from harness.capacity.answer import Interval
from harness.capacity.output import IDEALISED
from harness.capacity.search import QUEUE_GROWS
from harness.report.numbers import number


def percent(gain: Interval) -> str:
    """Return a ratio as a gain or loss in percent, with its interval."""
    text = f"{100 * (gain.mean - 1):+.1f} %"
    if gain.low is None or gain.high is None:
        return f"{text} (one sample)"
    return f"{text} ({100 * (gain.low - 1):+.1f} to {100 * (gain.high - 1):+.1f})"


def times(gain: Interval) -> str:
    """Return a ratio with its interval."""
    if gain.low is None or gain.high is None:
        return f"{gain.mean:.2f} times"
    return f"{gain.mean:.2f} times (95 %: {gain.low:.2f} to {gain.high:.2f})"


def worth(each: Worth) -> str:
    """Return what a knob is worth."""
    return "without it there is no rate" if each.ratio is None else percent(each.ratio)


def short(reason: str | None) -> str:
    """Return the first part of a reason, without what is in brackets or what could be done."""
    return str(reason).partition(" (")[0].partition(";")[0]


def values(advice: Advice) -> dict[str, str]:
    """Return the value of every knob that does anything in what is advised, fixed ones too."""
    space, setting = advice.space, advice.setting
    # A knob of one value that nobody set is no choice.
    known = [k for k in BY_NAME.values() if k.name in space.fixed or len(space.values(k)) > 1]
    found = {knob.name: space.value(setting, knob) for knob in known}
    return {name: value for name, value in found.items() if value is not None}


def idle(advice: Advice) -> frozenset[str]:
    """Return the knobs at their default of which another value does as well."""
    changed = {name for name, _ in advice.setting.changed}
    found = {each.name for each in advice.around if each.level and each.name not in changed}
    return frozenset(found - {"gpus", ALLOCATOR})


def untried(advice: Advice) -> list[str]:
    """Return the knobs at their default of which no other value was tried, for want of time."""
    space, setting = advice.space, advice.setting
    tried = {e.name for e in advice.around if e.better or e.level or e.worse or e.refused}
    known = {*tried, *(name for name, _ in setting.changed)}
    found = {knob.name for knob, _, _ in space.neighbours(setting)}
    return [knob.name for knob in space.knobs if knob.name in found - known]


def title(advice: Advice) -> str:
    """Return what was asked, in a heading."""
    config = advice.space.config(advice.setting)
    return f"{config.model.name} on {config.hardware.name}, {config.workload.name}"


def paragraph(advice: Advice) -> str:
    """Return the answer, to be pasted into a design document."""
    if advice.weighed is None or not advice.weighed.complete:
        return _unweighed(advice)
    parts = [_recommended(advice), kv_caution(advice), _sustains(advice)]
    if advice.fleet is not None:
        parts.append(_fleet(advice))
    parts += [_worths(advice), _left(advice), _unsettled(advice), _changes(advice), _clock(advice)]
    return " ".join(part for part in parts if part)


def _unweighed(advice: Advice) -> str:
    if not advice.history:
        return "Nothing was found before it was stopped."
    best = advice.history[-1]
    return (
        f"Nothing is recommended yet: on one seed {best.setting.label} sustains "
        f"{number(best.per_gpu)} {_what(advice)} a second and GPU, which was not weighed over "
        "others before it was stopped."
    )


def _recommended(advice: Advice) -> str:
    config = advice.space.config(advice.setting)
    limits = ", ".join(advice.asked.limits.texts()) or "no limit but a queue that does not grow"
    options = advice.setting.changed
    named = ", ".join(f"{name}={value}" for name, value in options)
    for_what = f"For {config.workload.name} with {config.model.name} on {config.hardware.name}"
    allocator = advice.space.allocator(advice.setting)
    with_all = f"{allocator} with {named}" if named and options[0][0] != ALLOCATOR else named
    what = f"{with_all or allocator + ' with its defaults'} is recommended"
    text = f"{for_what}, within {limits}, {what}."
    capacity = advice.weighed.capacity if advice.weighed else None
    if capacity is not None and capacity.variant.idealised:
        text += f" It is {IDEALISED}: no server has it."
    return text


def kv_caution(advice: Advice) -> str:
    """Say that a type of KV may change what the model says, where one is advised."""
    knob = BY_NAME[KV_DTYPE]
    value = advice.space.value(advice.setting, knob)
    if value in (None, AUTO):
        return ""
    return (
        f"With kv_dtype={value} the model's outputs may differ from those with its own type, and "
        "nothing here has measured by how much: check its accuracy on your own tasks first."
    )


def _sustains(advice: Advice) -> str:
    assert advice.weighed is not None
    capacity = advice.weighed.capacity
    if not capacity.held:
        return f"Over other seeds it has no rate: {capacity.reason}."
    found = per_gpu(capacity)
    text = f"It sustains {number(found.mean)} {_what(advice)} a second and GPU"
    if found.low is not None and found.high is not None:
        text += f" (95 %: {number(found.low)} to {number(found.high)})"
    cause = capacity.held_back_by
    text += f"; above that {cause if cause == QUEUE_GROWS else f'{cause} is broken'}"
    if advice.weighed.over_default is not None and advice.weighed.setting.changed:
        text += f"; {times(advice.weighed.over_default)} what the defaults do"
    elif advice.weighed.setting.changed:
        default = advice.weighed.capacities.get(advice.space.default)
        why = default.reason if default else advice.space.reason(advice.space.default)
        text += f"; the defaults have no rate ({short(why)})"
    price = advice.asked.options.price_per_gpu_hour
    tokens = fmean(float(h.below.metrics["output_tokens_per_s"] or 0.0) for h in capacity.held)
    if price is not None and tokens:
        cost = price / 3600 / (tokens / capacity.variant.gpus) * 1e6
        text += f"; a million output tokens cost {number(cost)}"
    return f"{text}."


def _fleet(advice: Advice) -> str:
    fleet = advice.fleet
    assert fleet is not None
    each = "GPU" if fleet.a_server == 1 else f"server of {fleet.a_server} GPUs"
    gpus = "1 GPU carries" if fleet.gpus == 1 else f"{fleet.gpus} GPUs carry"
    servers = "" if fleet.a_server == 1 else f" ({fleet.servers} servers of {fleet.a_server})"
    return (
        f"{gpus}{servers} {fleet.rate:g} a second and {100 * fleet.margin:.0f} % more: a {each} is "
        f"sure of {number(fleet.sure)}; at its share of {number(fleet.rate / fleet.servers)} every "
        f"limit is kept in {fleet.held} of {len(fleet.checked)} runs."
    )


def _worths(advice: Advice) -> str:
    assert advice.weighed is not None
    found = [
        f"{each.name}={each.value} {f'({worth(each)})' if each.ratio is None else worth(each)}"
        for each in advice.weighed.worth
    ]
    return f"Each by itself: {'; '.join(found)}." if found else ""


def _left(advice: Advice) -> str:
    """Say what is within noise and was left at its default, and what was not looked at."""
    assert advice.weighed is not None
    changed = {name for name, _ in advice.setting.changed}
    texts = {each.name: level(each) for each in advice.around if each.level}
    for each in advice.weighed.dropped:
        gain = "no gain" if each.ratio is None else percent(each.ratio)
        texts[each.name] = f"{each.value} {gain}"
    found = [f"{name} ({text})" for name, text in texts.items() if name not in changed]
    if not found:
        return ""
    bar = f"{100 * advice.asked.options.at_least:g} %"
    return f"Within noise or {bar}, and left at their defaults: {', '.join(found)}."


def _unsettled(advice: Advice) -> str:
    """Say what did better on one seed and was not weighed, and what was not tried at all."""
    dropped = {
        (each.name, each.value) for each in (advice.weighed.dropped if advice.weighed else [])
    }
    found = [
        f"{each.name}={value}"
        for each in advice.around
        for value in each.better
        if (each.name, value) not in dropped
    ]
    texts = (
        [f"Better on one seed, and not weighed over others: {', '.join(found)}."] if found else []
    )
    left = untried(advice)
    if left:
        goes_on = "the same command goes on from here"
        texts.append(f"For want of time no other value tried: {', '.join(left)}; {goes_on}.")
    return " ".join(texts)


def level(each: Around) -> str:
    """Return which values of a knob do as well as the one that is advised."""
    return f"{' '.join(each.level)} no worse than {each.value}"


def _changes(advice: Advice) -> str:
    changed = [answer for answer in advice.answers if answer.flips or answer.idle]
    if not advice.answers:
        return ""
    asked = f"{len(advice.answers)} other workloads and clocks"
    if not changed:
        return f"None of {asked} changes the choice."
    return f"Of {asked} it is changed by: {'; '.join(_flip(advice, each) for each in changed)}."


def flips(advice: Advice, answer: Answer) -> list[str]:
    """Return what becomes of the choice under a perturbation, what is worth most first."""
    ordered = sorted(answer.flips, key=lambda each: -each[1].mean)
    found = [f"{_other(advice, setting)} then {percent(gain)}" for setting, gain in ordered]
    return found + [f"{name} then within noise, {percent(gain)}" for name, gain in answer.idle]


def _other(advice: Advice, setting: Setting) -> str:
    """Return the knobs in which a setting is not what was weighed."""
    assert advice.weighed is not None
    space, found = advice.space, []
    for name, knob in BY_NAME.items():
        value, before = space.value(setting, knob), space.value(advice.weighed.setting, knob)
        does_more = before is None and setting.get(name) is None
        if value is not None and value != before and not does_more:
            found.append(f"{name}={value}")
    return ", ".join(found)


def _flip(advice: Advice, answer: Answer) -> str:
    first, *others = flips(advice, answer)
    more = f", and {len(others)} more" if others else ""
    return f"{answer.perturbation.name} ({first}{more})"


def _clock(advice: Advice) -> str:
    config = advice.space.config(advice.setting)
    return (
        f"All of it is simulated ({config.cost_model.name} clock, software {config.software.name}, "
        f"engine {config.engine.policy}); the interval is that of the sampling alone."
    )


def _what(advice: Advice) -> str:
    variant = advice.space.variant(advice.setting)
    return "requests" if variant is None else variant.what


def server_lines(advice: Advice) -> list[str]:
    """Return the flags of each server, a line each, and what has none."""
    found = values(advice)
    family = found.get(ALLOCATOR, advice.space.allocator(advice.setting))
    if not family.startswith(flags.FAMILY):
        return [f"{family} has no counterpart in {' or '.join(flags.SERVERS)}."]
    found.pop(ALLOCATOR, None)
    lines = []
    for server in flags.SERVERS:
        # Of what was not tried nobody knows whether it matters: a server's default may do as well.
        texts = flags.flags(server, found, idle(advice) | frozenset(untried(advice)))
        line = f"{server}, {flags.VERSIONS[server]}: {' '.join(texts) or 'its defaults'}"
        changed = dict(advice.setting.changed)
        none = [each for each in flags.missing(server, found) if each.split("=")[0] in changed]
        lines.append(line + (f"; no flag for {', '.join(none)}" if none else ""))
    return lines
