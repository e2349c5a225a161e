"""`python -m harness.measure.calibrate [OPTION=VALUE ...]`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from harness.command.frame import OK, run_command
from harness.errors import ConfigError, InputError
from harness.measure.calibrate.options import USAGE, CalibrateOptions, executor_spec, parse
from harness.measure.options import load_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2, after one line, for input that is wrong."""
    return run_command(_main, USAGE, arguments, writing="the calibration")


def _main(arguments: Sequence[str]) -> int:
    # Without the folders of this machine: the file may be handed on.
    named = [f"out={Path(x[4:]).name}" if x.startswith("out=") else x for x in arguments]
    try:
        options = parse(arguments)
        return _calibrate(options, f"python -m harness.measure.calibrate {shlex.join(named)}")
    except InputError as error:
        # The executor names its own options; here they stand without their group.
        raise ConfigError(str(error).replace("executor.", "")) from error


def _calibrate(options: CalibrateOptions, command: str) -> int:
    shape = load_model(options.model)
    out = _out(options)

    import torch

    from allocators.base import Unsupported
    from harness.cost.calibrated import Calibrated
    from harness.cost.calibration import load_calibration
    from harness.executors.model.real_run import RealRun
    from harness.executors.model.settings import settle
    from harness.measure.calibrate.accuracy import measure_accuracy
    from harness.measure.calibrate.measure import measure, summary
    from kernels.memory import OutOfMemory

    if options.threads:
        torch.set_num_threads(options.threads)
    spec = executor_spec(options)
    shape = settle(spec, shape)
    if options.calibration:
        calibration = load_calibration(options.calibration)
        calibration.check_model(shape, options.calibration)
        for name, here in (
            ("device", spec.device), ("backend", spec.backend), ("threads", torch.get_num_threads())
        ):  # fmt: skip
            there = getattr(calibration, name)
            if there != here:
                raise ConfigError(f"the calibration was measured with {name}={there}, not {here}")
        real = RealRun(spec, shape, 0)
    else:
        out = out or Path(f"calibration-{options.model}-{spec.device}-{spec.dtype}.json")
        real = RealRun(spec, shape, 0)
        try:
            calibration = measure(real, options, command.strip())
        except (Unsupported, OutOfMemory) as error:
            raise ConfigError(str(error)) from error
        calibration.write(out)
        print(summary(calibration, shape))
    if options.compare:
        assert options.runs
        assert options.requests
        cost = Calibrated(shape, calibration, options.calibration or str(out))
        found = measure_accuracy(real, cost, options.runs, options.requests)
        print(f"\nSimulated against measured steps, {calibration.statistic} of {options.runs}\n")
        print(found.text())
        if out is not None:
            calibration.comparison = asdict(found)
            calibration.write(out)
    if out is not None:
        print(f"\nWritten to {out}. To simulate with it:")
        print(
            f"  python -m harness +workload=NAME model={options.model} "
            f"model.dtype_bytes={shape.dtype_bytes} cost_model=calibrated cost_model.file={out}"
        )
    return OK


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


if __name__ == "__main__":
    sys.exit(main())
