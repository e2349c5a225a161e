"""The options of the command: its own, and those of a run that say what there is to size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.cost.kv import KV_FORMATS
from harness.errors import ConfigError

USAGE = f"""\
usage: python -m harness.size model=NAME hardware=NAME [OPTION=VALUE ...] [--format table|json]

What a server's memory goes to, and what fits into what is left for the KV cache: weights,
activations, bytes of a token in each layer group, sequences of some lengths, by the number of GPUs
and by what the KV is stored in. docs/size.md has examples.

  model=NAME           conf/model, or model=hf model.path=config.json
  hardware=NAME        conf/hardware; hardware.memory_utilization=0.9, ...
  hardware.count=1,2,4,8   GPUs that share the model, by tensor parallelism
  kv_dtype=bf16,fp8    {", ".join(KV_FORMATS)}
  lengths=2048,8192,32768,131072   tokens of a sequence, prompt and output
  memory=NAME          conf/memory: what a release of a server keeps besides
  engine=chunked       conf/engine; engine.max_num_seqs and engine.max_num_batched_tokens size the
                       activations
  --format table       json: the same in bytes
"""
FORMATS = ("table", "json")
COUNTS, DTYPES, LENGTHS = (1, 2, 4, 8), ("bf16", "fp8"), (2048, 8192, 32768, 131072)
#: what of a run's options is read
GROUPS = ("model", "hardware", "memory", "engine")
#: beyond any server, any context and any list that one reads
MOST_GPUS, MOST_TOKENS, MOST_VALUES = 2**12, 2**30, 32


@dataclass
class Asked:
    """A command line: what to size, and `run`, the options of a run that it is done with."""

    counts: tuple[int, ...] = COUNTS
    kv_dtypes: tuple[str, ...] = DTYPES
    lengths: tuple[int, ...] = LENGTHS
    format: str = "table"
    run: list[str] = field(default_factory=list)


def parse(arguments: Sequence[str]) -> Asked:
    """Return what a command line asks for.  Raises `ConfigError`, one line."""
    asked, rest = Asked(), list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name == "--format":
            asked.format = value if equals else (rest.pop(0) if rest else "")
            if asked.format not in FORMATS:
                raise ConfigError(f"--format must be {' or '.join(FORMATS)}, got {asked.format!r}")
        elif argument.startswith("-"):
            raise ConfigError(f"{argument}: expected OPTION=VALUE or --format json; see --help")
        elif not equals:
            raise ConfigError(f"{argument!r} is not OPTION=VALUE; --help lists the options")
        elif name == "hardware.count":
            asked.counts = _numbers(name, value, MOST_GPUS)
        elif name == "lengths":
            asked.lengths = _numbers(name, value, MOST_TOKENS)
        elif name in ("kv_dtype", "model.kv_dtype"):
            asked.kv_dtypes = _types(value)
        elif name.lstrip("+~").partition(".")[0] not in GROUPS:
            raise ConfigError(
                f"{name} changes nothing here; there are {', '.join(GROUPS)}, hardware.count, "
                "kv_dtype and lengths"
            )
        else:
            asked.run.append(argument)
    return asked


def _values(name: str, text: str) -> list[str]:
    values = [part.strip() for part in text.strip("[]").split(",")]
    if len(values) > MOST_VALUES:
        raise ConfigError(f"{name} has {len(values)} values; at most {MOST_VALUES}")
    return list(dict.fromkeys(values))


def _numbers(name: str, text: str, most: int) -> tuple[int, ...]:
    found = []
    for value in _values(name, text):
        if not (value.isascii() and value.isdecimal()) or not 1 <= int(value) <= most:
            raise ConfigError(
                f"{name} must be whole numbers of at least 1 and at most {most}, as in "
                f"{name}=1,2, got {value!r}"
            )
        found.append(int(value))
    return tuple(found)


def _types(text: str) -> tuple[str, ...]:
    for value in _values("kv_dtype", text):
        if value not in KV_FORMATS:
            raise ConfigError(f"kv_dtype must be one of {', '.join(KV_FORMATS)}, got {value!r}")
    return tuple(_values("kv_dtype", text))
