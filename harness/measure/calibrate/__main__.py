"""`python -m harness.measure.calibrate [OPTION=VALUE ...]`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.command.frame import OK, run_command
from harness.cost.shapes import CostError
from harness.errors import ConfigError
from harness.measure.calibrate.options import USAGE, CalibrateOptions, executor_spec, parse
from harness.measure.options import load_model

if TYPE_CHECKING:
    from harness.cost.calibration import Calibration
    from harness.executors.model.real_run import RealRun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command(_main, USAGE, given, writing="the calibration")


def _main(arguments: Sequence[str]) -> int:
    try:
        return _calibrate(parse(arguments), _command(arguments))
    except (ConfigError, CostError) as error:
        # The executor names its own options; here they stand without their group.
        raise ConfigError(str(error).replace("executor.", "")) from error


def _calibrate(options: CalibrateOptions, command: str) -> int:
    shape = load_model(options.model)
    out = _out(options)

    import torch

    from harness.cost.calibrated import Calibrated
    from harness.cost.calibration import load_calibration
    from harness.executors.model.real_run import RealRun
    from harness.executors.model.settings import settle
    from harness.measure.calibrate import output
    from harness.measure.calibrate.accuracy import measure_accuracy

    if options.threads:
        torch.set_num_threads(options.threads)
    spec = executor_spec(options)
    shape = settle(spec, shape)
    if options.calibration:
        calibration = load_calibration(options.calibration)
        calibration.check_model(shape, options.calibration)
        _check_machine(calibration, spec.device, spec.backend, torch.get_num_threads())
        real = RealRun(spec, shape, 0)
    else:
        out = out or Path(f"calibration-{options.model}-{spec.device}-{spec.dtype}.json")
        real = RealRun(spec, shape, 0)
        calibration = _measure(options, real, command)
        calibration.write(out)
        print(output.summary(calibration, shape))
    if options.compare:
        assert options.runs
        assert options.requests
        cost = Calibrated(shape, calibration, options.calibration or str(out))
        found = measure_accuracy(real, cost, options.runs, options.requests, say=_say)
        print(f"\nSimulated against measured steps, {calibration.statistic} of {options.runs}\n")
        print(output.errors(found))
        if out is not None:
            calibration.comparison = found.record()
            calibration.write(out)
    if out is not None:
        print(f"\nWritten to {out}. To simulate with it:")
        print(
            f"  python -m harness +workload=NAME model={options.model} "
            f"model.dtype_bytes={shape.dtype_bytes} cost_model=calibrated cost_model.file={out}"
        )
    return OK


def _command(given: Sequence[str]) -> str:
    """Return the command without the folders of this machine: the file may be handed on."""
    named = [f"out={Path(x[4:]).name}" if x.startswith("out=") else x for x in given]
    return f"python -m harness.measure.calibrate {shlex.join(named)}".strip()


def _measure(options: CalibrateOptions, real: RealRun, command: str) -> Calibration:
    from allocators.base import Unsupported
    from harness.measure.calibrate.measure import measure
    from harness.results.environment import describe_environment
    from kernels.memory import OutOfMemory

    try:
        calibration = measure(real, options, _say)
    except (Unsupported, OutOfMemory) as error:
        raise ConfigError(str(error)) from error
    calibration.command, calibration.environment = command, describe_environment()
    return calibration


def _out(options: CalibrateOptions) -> Path | None:
    """Return the file to write, None if it is named later or none is written."""
    if options.out is None:
        return None
    out = Path(options.out).expanduser()
    # Asked now, so that a mistake does not show only after a minute of measuring.
    if out.is_dir():
        raise ConfigError(f"out={out} is a directory; expected a file")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no directory {out.parent}")
    return out


def _check_machine(calibration: Calibration, device: str, backend: str, threads: int) -> None:
    """Refuse to compare runs of one kind with a calibration of another."""
    for name, measured, here in (
        ("device", calibration.device, device),
        ("backend", calibration.backend, backend),
        ("threads", calibration.threads, threads),
    ):
        if measured != here:
            raise ConfigError(f"the calibration was measured with {name}={measured}, not {here}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
