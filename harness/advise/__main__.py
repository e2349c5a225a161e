"""`python -m harness.advise +workload=NAME [slo.METRIC=VALUE ...] [OPTION=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.advise.options import USAGE, parse
from harness.command.folder import check_own, out_folder
from harness.command.frame import INTERRUPTED, OK, run_command
from harness.command.output import say

if TYPE_CHECKING:
    from harness.advise.advice import Advice


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    return run_command(_main, USAGE, arguments)


def _main(arguments: Sequence[str]) -> int:
    asked = parse(arguments)
    out = out_folder(asked.options.out, "advise")
    check_own(out, "advice.json", asked.question)
    from harness.advise.advice import advise, new_advice
    from harness.capacity.runner import Runner

    advice = new_advice(asked)
    try:
        with Runner(asked.options.jobs, asked.options.kept) as runner:
            advise(asked, say, runner, advice)
    except KeyboardInterrupt:
        advice.interrupted = True
        say(f"interrupted; what was run is kept in {asked.options.kept}: the same command goes on")
    say(f"{advice.runs} runs made, {advice.kept_runs} kept from before")
    if advice.history:
        _show(advice, out, arguments)
    return INTERRUPTED if advice.interrupted else OK


def _show(advice: Advice, out: Path, arguments: Sequence[str]) -> None:
    from harness.advise import output
    from harness.advise.page import page
    from harness.results.atomic import write_text

    print(output.text(advice))
    print()
    print(output.how(advice))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "advice.json", output.record(advice))
    write_text(out / "advice.html", page(advice, arguments))
    print(f"Results in {out}")


if __name__ == "__main__":
    sys.exit(main())
