"""Tab completion of the command line in bash: `source <(python -m harness --completion)`.

The script that is sourced asks the command itself, `--complete LINE`, so that it knows the names
of installed allocators and the options of what has been typed before.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

SCRIPT = """\
# Tab completion of kv-harness and python -m harness, for bash.
_kv_harness() {
    local command=("${COMP_WORDS[0]}") line=${COMP_LINE:0:COMP_POINT}
    if [[ ${COMP_WORDS[0]##*/} != kv-harness ]]; then
        [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == harness ]] || return
        command+=(-m harness)
    fi
    local IFS=$'\\n' word=${line##*[[:space:]]}
    COMPREPLY=($("${command[@]}" --complete "$line" 2>/dev/null))
    # Readline replaces only what stands after the last character at which it breaks words.
    local kept=${word%"${word##*["$COMP_WORDBREAKS"]}"}
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}
complete -o nospace -o bashdefault -o default -F _kv_harness kv-harness python python3
"""
FLAGS = ("--cfg", "--completion", "--help", "--hydra-help", "--multirun", "-m")


def candidates(line: str) -> list[str]:
    """Return what the last word of a command line up to the cursor may become, sorted.

    A candidate that is a whole argument ends in a space; there is none for the name of a file.
    """
    words = _words(line)
    word = "" if not words or line[-1:].isspace() else words.pop()
    if word.startswith("-"):
        found: Iterable[str] = (f"{flag} " for flag in FLAGS)
    elif "=" in word:
        found = _values(*word.split("=", 1))
    else:
        found = _names(word, words)
    return sorted({each for each in found if each.startswith(word)})


def _words(line: str) -> list[str]:
    """Return the arguments of a line, without the command itself."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is still open
        words = line.split()
    return words[3:] if words[1:3] == ["-m", "harness"] else words[1:]


def _values(name: str, given: str) -> list[str]:
    from harness.cli.help import groups, options

    group = name.lstrip("+")
    if group not in groups():
        known = choices().get(name.rpartition(".")[2], ())
        return [f"{name}={value} " for value in known]
    begun, comma, _ = given.rpartition(",")
    begun = f"{begun}{comma}" or given[: given.startswith("[")]
    end = "" if begun else " "
    return [f"{name}={begun}{option}{end}" for option in options(group)]


def choices() -> dict[str, tuple[str, ...]]:
    """Return what options of a fixed set allow, by the last part of their names."""
    from allocators.layered.build import GROUPS
    from allocators.prefix import EVICTIONS, FREE_ORDERS, INDEXES
    from harness.cost.kv import KV_FORMATS
    from harness.engine.config import PREEMPTIONS, SAMPLING_MODES
    from harness.executors.spec import DEVICES
    from harness.observers.spec import REPORTS, TRACES
    from harness.results.writer import TIMELINES
    from workloads.arrivals import KINDS
    from workloads.build import PACES
    from workloads.requests import TOO_LONG

    return {
        "arrivals": KINDS,
        "device": DEVICES,
        "eviction": EVICTIONS,
        "free_order": FREE_ORDERS,
        "groups": GROUPS,
        "kv_dtype": tuple(KV_FORMATS),
        "mode": SAMPLING_MODES,
        "pace": PACES,
        "preemption": PREEMPTIONS,
        "prefix_index": INDEXES,
        "report": REPORTS,
        "timeline": TIMELINES,
        "too_long": TOO_LONG,
        "trace": TRACES,
    }


def _names(word: str, before: list[str]) -> list[str]:
    from harness.cli.help import groups

    given = {argument.partition("=")[0].lstrip("+") for argument in before}
    # These two are not in the default configuration, so they are added with a plus sign.
    added = {"experiment", "workload"}
    found = [f"{group}=" for group in groups() if group not in added]
    if not added & given:
        found += [f"+{group}=" for group in sorted(added)]
    for name in _options(before):
        rest = name[len(word) :] if name.startswith(word) else ""
        nested = "." in rest
        found.append(f"{word}{rest.partition('.')[0]}." if nested else f"{name}=")
    return found


def _options(before: list[str]) -> list[str]:
    """Return the full names of the options there are behind the arguments given so far."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from harness.cli.installed import search_path_override
    from harness.comparison.config import compose, plain_options
    from harness.results.options import flat

    overrides = [argument for argument in before if "=" in argument]
    for choice in (overrides, []):  # what cannot be composed yet is left out
        try:
            composed = compose(*choice, *search_path_override(choice))
        except (HydraException, OmegaConfBaseException):
            continue
        plain = plain_options(composed, resolve=False)
        return [name for name in flat(plain) if not name.endswith("._target_")]
    return []
