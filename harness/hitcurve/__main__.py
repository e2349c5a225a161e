"""`python -m harness.hitcurve workload.path=FILE [OPTION=VALUE ...]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.command.folder import out_folder
from harness.command.frame import run_command
from harness.errors import ConfigError
from harness.hitcurve.options import USAGE, HitCurveOptions, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    return run_command(_main, USAGE, arguments)


def _main(arguments: Sequence[str]) -> int:
    from workloads.errors import WorkloadError

    options = parse(arguments)
    try:
        return _run(options, out_folder(options.out, "hitcurve"))
    except WorkloadError as error:
        raise ConfigError(str(error)) from error


def _run(options: HitCurveOptions, out: Path) -> int:
    import numpy as np

    from harness.hitcurve import output
    from harness.hitcurve.curve import compute
    from harness.hitcurve.figure import draw
    from harness.hitcurve.trace import block_trace
    from workloads.formats import read

    path = str(options.workload.path)
    requests = read(path, options.workload.format, columns=options.workload.columns)
    wanted = options.workload.num_requests
    if wanted is not None:
        if wanted > len(requests):
            raise ConfigError(
                f"workload.num_requests={wanted}, but {path} has {len(requests)} requests"
            )
        requests = requests.take(np.arange(wanted))
    for note in requests.notes:
        print(f"note: {note}", file=sys.stderr)
    trace = block_trace(requests, options.block_tokens)
    points = list(compute(trace, options))
    source = (
        f"{Path(path).name}: {len(requests):,} requests, {len(trace.blocks):,} blocks of "
        f"{trace.block_tokens} tokens, {trace.distinct:,} distinct"
    )
    print(source)
    print("Blocks that hit, %")
    print(output.table(points))
    out.mkdir(parents=True, exist_ok=True)
    output.write_csv(out / "hitcurve.csv", points, trace.block_tokens)
    output.write_json(out / "hitcurve.json", points, trace, Path(path).name)
    draw(out / "hitcurve.png", points, trace, source)
    print(f"Results in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
