"""`python -m harness.capacity +workload=NAME [slo.METRIC=VALUE ...] [OPTION=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.capacity.options import USAGE, Asked, parse
from harness.command.folder import check_own, out_folder
from harness.command.frame import INTERRUPTED, OK, run_command
from harness.command.output import say
from harness.errors import ConfigError

if TYPE_CHECKING:
    from harness.capacity.question import Variant
    from harness.capacity.search import Capacity


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    return run_command(_main, USAGE, arguments)


def _main(arguments: Sequence[str]) -> int:
    asked = parse(arguments)
    out = out_folder(asked.options.out, "capacity")
    check_own(out, "capacity.json", asked.question)
    from harness.capacity.question import variants_of

    variants = variants_of(asked.run, asked.also)
    for note in dict.fromkeys(note for variant in variants for note in variant.notes):
        say(f"note: {note}")
    found: dict[int, Capacity] = {}
    interrupted = False
    try:
        _search(asked, variants, found)
    except KeyboardInterrupt:
        interrupted = True
        say(f"interrupted; what was run is kept in {asked.options.kept}: the same command goes on")
    if found:
        _show(asked, [found[place] for place in sorted(found)], out, arguments)
    return INTERRUPTED if interrupted else OK


def _search(asked: Asked, variants: Sequence[Variant], found: dict[int, Capacity]) -> None:
    """Find the capacity of each variant, by its place in `found`.

    Raises `ConfigError` if none has any.
    """
    from harness.capacity.answer import rate
    from harness.capacity.runner import Runner
    from harness.capacity.search import Settings, find
    from harness.report.numbers import number

    options = asked.options
    settings = Settings(
        options.seeds, options.tolerance, options.requests, options.duration, options.curve
    )

    def tell(place: int, capacity: Capacity) -> None:
        found[place] = capacity
        what = f"{number(rate(capacity).mean)} a second" if capacity.held else capacity.reason
        say(f"{capacity.variant.label}: {what} ({len(capacity.seen)} runs)")

    searches = [find(variant, asked.limits, settings) for variant in variants]
    with Runner(options.jobs, options.kept) as runner:
        runner.run(searches, tell)
    say(f"{runner.runs} runs made, {runner.kept_runs} kept from before")
    if not any(capacity.held for capacity in found.values()):
        first = found[0]
        raise ConfigError(f"{first.variant.label}: {first.reason}")


def _show(asked: Asked, found: Sequence[Capacity], out: Path, arguments: Sequence[str]) -> None:
    from harness.capacity import output
    from harness.capacity.answer import rows_of
    from harness.capacity.figure import draw
    from harness.capacity.page import page
    from harness.capacity.question import composed_of
    from harness.report.charts.chart import save
    from harness.report.charts.theme import themed
    from harness.results.atomic import write_text

    rows = rows_of(found)
    how = output.headline(rows, asked)
    print(how)
    print(output.table(rows, asked))
    print(output.best_sentence(rows))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "capacity.json", output.record(rows, asked))
    if any(row.rate is not None for row in rows):
        config = composed_of(found[0].variant.options)
        title = f"Capacity: {config.model.name} on {config.hardware.name}, {config.workload.name}"
        try:
            with themed():
                save(draw(rows, asked.limits, title, how).figure, out / "capacity.png")
                chart = draw(rows, asked.limits)
                write_text(out / "capacity.html", page(title, rows, asked, chart, arguments))
        except (ImportError, ValueError, RuntimeError) as error:  # Matplotlib's settings are bad
            say(f"note: no figure and no page: {' '.join(str(error).split())}")
    print(f"Results in {out}")


if __name__ == "__main__":
    sys.exit(main())
