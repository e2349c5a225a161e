"""The options of `harness.measure`, typed, and their checks; importing this imports no torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from harness.command.arguments import parse_options
from harness.cost.hf.read import AS_FILE
from harness.cost.shapes import ModelShape
from harness.errors import ConfigError
from kernels.support import installed

STEPS = (
    *("environment", "kernels", "curve", "vmm", "identity"),
    *("opt-13b", "llama-3-8b"),
)
DEVICES = ("cuda", "cpu")
#: what a machine must have besides torch and what torch needs; Numba, pandas, pyarrow and the rest
#: of pyproject.toml are for simulations, files and figures
NEEDED = ("numpy", "yaml", "omegaconf", "hydra", "safetensors", "psutil")

USAGE = f"""\
usage: python -m harness.measure [OPTION=VALUE ...]
       python -m harness.measure report DIR

Measures everything that wants a GPU, one step after the other, and writes a record of each as soon
as there is something to keep: an interruption loses nothing. The second form writes the tables of
records anew (DIR/README.md); the first does so at its end.

  out=DIR            where records go; results/measured/DATE-GPU (on a CPU results/runs/measure-..)
  only=STEP,...      of {", ".join(STEPS)}
  limit_s=540        seconds for all; a step that would start too late is recorded as skipped
  archive=FILE       the records as one .tar.gz too, written again after each step
  device=cuda        cuda, or cpu: proves the chain without a GPU
  quick=false        true: tiny sizes
  requests=N         of each run that is served; as many as fit the time, by a trial of a few steps
  isolate=true       each step in a process of its own: a fault on the device, or a kernel that
                     never ends, then costs one step (false with device=cpu)
  commit=SHA         what is measured, where the checkout came without its history
"""


@dataclass
class MeasureOptions:
    out: str | None = None
    only: Any = None
    limit_s: float = 540.0
    archive: str | None = None
    device: str = "cuda"
    quick: bool = False
    requests: int | None = None
    isolate: bool | None = None
    commit: str | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps asked for, in the order in which they run."""
        return STEPS if self.only is None else tuple(s for s in STEPS if s in self.only)


def parse(arguments: Sequence[str]) -> MeasureOptions:
    """Return the options of a command line.  Raises `ConfigError` of one line for any mistake."""
    options = parse_options(arguments, MeasureOptions)
    if options.only is not None:
        names = options.only if isinstance(options.only, list) else str(options.only).split(",")
        options.only = [str(name).strip() for name in names]
        wrong = [name for name in options.only if name not in STEPS]
        if wrong or not options.only:
            raise ConfigError(f"only must name steps of {', '.join(STEPS)}, got {wrong}")
    check_one_of("device", options.device, DEVICES)
    if not 0 < options.limit_s < math.inf:
        raise ConfigError(f"limit_s must be a positive number, got {options.limit_s}")
    if options.isolate is None:
        options.isolate = options.device == "cuda"
    if options.requests is not None and options.requests < 1:
        raise ConfigError(f"requests must be at least 1, got {options.requests}")
    return options


def check_installed() -> None:
    """Raise `ConfigError` that names all that is missing here of `NEEDED`."""
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        raise ConfigError(
            f"not installed: {', '.join(missing)} (docs/gpu.md says what to take along)"
        )


def check_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Raise `ConfigError` if the option `name` has a value that it may not have."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def load_model(name: str) -> ModelShape:
    """Return the shape of `conf/model/NAME.yaml`.  Raises `ConfigError` if there is none."""
    from omegaconf import OmegaConf

    folder = files("conf") / "model"
    names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")
    check_one_of("model", name, [each for each in names if each != AS_FILE.name])
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    merged = OmegaConf.merge(OmegaConf.structured(ModelShape), OmegaConf.create(text))
    shape = OmegaConf.to_object(merged)
    assert isinstance(shape, ModelShape)
    return shape
