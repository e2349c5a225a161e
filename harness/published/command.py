"""`python -m harness +experiment=NAME` for a published figure, or `all` of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.command.arguments import check_run_option
from harness.command.frame import FAILED, OK
from harness.command.output import say
from harness.errors import ConfigError
from harness.published.experiment import Runs, absent, load, outcome
from harness.published.registry import MAKERS
from harness.published.render import markdown, rewritten, screen
from harness.published.tasks import Task, run_tasks
from harness.results.atomic import write_text

CHOICE = "+experiment="
ALL = "all"
KEPT = "results/validation"
PAGE = "docs/validation.md"
FOLDER = "KV_HARNESS_SHARED"


@dataclass(frozen=True)
class Options:
    """data: the folder of public data. out: where results go. page: what `all` rewrites."""

    data: Path | None
    out: Path
    page: Path
    workers: int | None
    overrides: tuple[str, ...]


def chosen(arguments: Sequence[str]) -> str | None:
    """Return the published figure that a command line chooses, if it does."""
    names = [a.removeprefix(CHOICE) for a in arguments if a.startswith(CHOICE)]
    return names[-1] if names and (names[-1] == ALL or names[-1] in MAKERS) else None


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one experiment or all; return the exit status.  Raises `ConfigError`, `OSError`."""
    options = _options(name, [a for a in arguments if not a.startswith(CHOICE)])
    names = list(MAKERS) if name == ALL else [name]
    page = _page(options.page) if name == ALL else None
    if page is not None:  # every part has its place, asked before minutes of simulation
        rewritten(page, {each: _nothing(each) for each in names}, str(options.page))
    options.out.mkdir(parents=True, exist_ok=True)
    results = compute(names, options)
    for each, result in results.items():
        print(f"{screen(result)}\n")
        kept = options.out / f"{each}.json"
        if result["absent"] and page is not None and kept.is_file():
            say(f"note: {each}: {result['absent']}; {kept} is left as it was")
            results[each] = read_result(kept)
            continue
        write_text(kept, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        if page is None:
            write_text(options.out / f"{each}.md", markdown(result) + "\n")
    if page is not None:
        write_text(options.page, rewritten(page, results, str(options.page)))
        print(f"Tables of {options.page} rewritten")
    print(f"Results in {options.out}")
    return FAILED if any(result["failures"] for result in results.values()) else OK


def compute(names: Sequence[str], options: Options) -> dict[str, dict[str, Any]]:
    """Return the results of experiments, by name; what they have in common is run once."""
    experiments, wanted = {}, {}
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        experiment = load(name)
        assert experiment is not None, name
        experiments[name] = experiment
        missing = experiment.missing(options.data)
        if missing:
            results[name] = absent(experiment, missing)
        else:
            kind = MAKERS[name].kind
            wanted[name] = experiment.tasks(options.overrides, options.data, kind)
    tasks: list[Task] = [task for by_place in wanted.values() for task in by_place.values()]
    try:
        found = run_tasks(tasks, options.workers, _tell)
    except KeyboardInterrupt:
        say("interrupted; nothing was written")
        raise
    for name, by_place in wanted.items():
        columns: dict[str, dict[str, Any]] = {}
        for (column, setup), task in by_place.items():
            columns.setdefault(column, {})[setup] = found[task]
        runs = {column: Runs(by_setup) for column, by_setup in columns.items()}
        results[name] = outcome(experiments[name], runs, MAKERS[name].values)
    return {name: results[name] for name in names}


def read_result(path: Path) -> dict[str, Any]:
    """Return a kept result; raises `ConfigError` where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty() or done == total:
        say(f"{done} of {total} set-ups run")


def _page(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"page={path}: cannot be read ({error}); +experiment={ALL} rewrites a page"
        ) from error


def _nothing(name: str) -> dict[str, Any]:
    return {"experiment": name, "setups": {}, "rows": [], "absent": None, "failures": {}}


def _options(name: str, arguments: Sequence[str]) -> Options:
    shared = os.environ.get(FOLDER)
    out = KEPT if name == ALL else f"results/runs/{name}"
    options = Options(Path(shared) / "data" if shared else None, Path(out), Path(PAGE), None, ())
    overrides = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("data", "out", "page"):
            if not value:
                raise ConfigError(f"{key}= has no value")
            options = replace(options, **{key: Path(value).expanduser()})
        elif key == "workers":
            if not value.isdecimal() or int(value) < 1:
                raise ConfigError(f"workers must be a whole number of at least 1, got {value!r}")
            options = replace(options, workers=int(value))
        elif argument.startswith("-"):
            raise ConfigError(f"{CHOICE}{name} takes no {argument}: it is a set of runs by itself")
        else:
            check_run_option(argument)
            overrides.append(argument)
    if options.data is not None and not options.data.is_dir():
        raise ConfigError(f"data={options.data}: no such folder")
    if name == ALL and overrides:
        raise ConfigError(
            f"{CHOICE}{ALL} takes no {overrides[0]}: the page is of the set-ups as they are; "
            f"data=DIR, out=DIR, page=FILE and workers=N are its options"
        )
    return replace(options, overrides=tuple(overrides))
