"""`python -m harness.replay measured=FILE model=NAME hardware=NAME [OPTION=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.command.folder import out_folder
from harness.command.frame import OK, run_command
from harness.command.output import say
from harness.errors import ConfigError
from harness.replay.options import USAGE, ReplayOptions, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from harness.replay.measured import MeasuredRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    return run_command(_main, USAGE, arguments)


def _main(arguments: Sequence[str]) -> int:
    from harness.replay import figure, output
    from harness.replay.fit import fit
    from harness.replay.run import replayed
    from harness.replay.server_metrics import read_metrics
    from harness.replay.simulate import prepare_replay

    options, overrides = parse(arguments)
    out = out_folder(options.out, "replay")
    measured = _measured(options)
    server = None if options.metrics is None else read_metrics(options.metrics)
    composed = _composed(overrides)
    prepared = prepare_replay(str(options.measured), measured, composed)
    for note in (*measured.notes, *prepared.notes):
        print(f"note: {note}", file=sys.stderr)
    found = None
    if options.fit:
        found = fit(str(options.measured), measured, composed, prepared, say)
    replay = replayed(str(options.measured), measured, prepared, server, found)
    for note in replay.notes[len(measured.notes) + len(prepared.notes) :]:
        print(f"note: {note}", file=sys.stderr)
    print(output.text(replay))
    out.mkdir(parents=True, exist_ok=True)
    output.write(out, replay)
    figure.draw(out / "replay.png", replay)
    print(f"\nResults in {out}")
    return OK


def _measured(options: ReplayOptions) -> MeasuredRun:
    from harness.replay.formats import read
    from harness.replay.measured import measured_run

    records = read(str(options.measured), options.run)
    return measured_run(str(options.measured), records, options.arrival_spec, options.prompt_tokens)


def _composed(overrides: list[str]) -> DictConfig:
    from harness.cli.checks import WRONG_INPUT, explained
    from harness.cli.installed import search_path_override
    from harness.cli.overrides import parsed
    from harness.replay.simulate import compose_replay

    try:
        parsed(overrides)
        return compose_replay([*overrides, *search_path_override(overrides)])
    except WRONG_INPUT as error:
        raise ConfigError(explained(error, overrides)) from error


if __name__ == "__main__":
    sys.exit(main())
