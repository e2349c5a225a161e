"""The options of the command, typed, and their checks; importing this imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.command.arguments import parse_options
from harness.errors import ConfigError
from harness.executors.spec import ExecutorSpec
from harness.measure.options import check_one_of

#: how several times of one thing become one.  Others on the machine only ever make it slower, so
#: the least is what it does undisturbed, and the median what is to be expected while they go on
STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {"median": np.median, "least": np.min}

USAGE = """\
usage: python -m harness.measure.calibrate [OPTION=VALUE ...]

Measures this machine for one model (attention by batch and context, linear layers, copies, maps)
and writes a file that cost_model=calibrated reads. Then serves a few workloads for real, asks the
file what each of their steps should take, and reports the error.

  model=llama-tiny        whose shape is measured: a file of conf/model
  out=FILE                the file to write; calibration-MODEL-DEVICE-DTYPE.json
  calibration=FILE        measure nothing: compare with this file
  compare=true            false: measure only
  requests=24             of each run compared
  runs=3                  how often each is served
  device=auto             cpu, cuda or auto
  dtype=auto              float32, float16 or bfloat16; as executor.dtype
  backend=auto            the attention back end; as executor.backend
  batch_invariant=null    true, false, or null: true in float32
  threads=N               of a CPU's kernels; torch's own number (all cores). With fewer, a machine
                          that others use too gives steadier times; the same holds for what is
                          simulated: a real run then needs OMP_NUM_THREADS=N
  page_tokens=16          tokens of a page in serving runs; attention is measured with others too
  repeats=9               samples of each time
  statistic=median        what counts of several times: median, or least: what the machine does
                          undisturbed, for one that others use too
  quick=false             true: a coarser grid, repeats=3 requests=8 runs=1
"""


@dataclass
class CalibrateOptions:
    model: str = "llama-tiny"
    out: str | None = None
    calibration: str | None = None
    compare: bool = True
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    batch_invariant: bool | None = None
    threads: int | None = None
    page_tokens: int = 16
    repeats: int | None = None
    statistic: str = "median"
    requests: int | None = None
    runs: int | None = None
    quick: bool = False


def parse(arguments: Sequence[str]) -> CalibrateOptions:
    """Return the options of a command line.  Raises `ConfigError` of one line for any mistake."""
    options = parse_options(arguments, CalibrateOptions)
    check_one_of("statistic", options.statistic, STATISTICS)
    for name, default, quick in (("repeats", 9, 3), ("requests", 24, 8), ("runs", 3, 1)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else default)
    for name, most in (
        ("page_tokens", 512), ("repeats", 1000), ("requests", 1000), ("runs", 1000),
        ("threads", 1024),
    ):  # fmt: skip
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            raise ConfigError(f"{name} must be from 1 to {most}, got {value}")
    if options.calibration and not options.compare:
        raise ConfigError("calibration=FILE compare=false leaves nothing to do")
    if options.calibration and options.out:
        raise ConfigError("calibration=FILE measures nothing, so there is nothing for out=")
    return options


def executor_spec(options: CalibrateOptions) -> ExecutorSpec:
    """Return the executor that these options ask for."""
    return ExecutorSpec(
        name="model",
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        batch_invariant=options.batch_invariant,
    )
