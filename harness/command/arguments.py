"""OPTION=VALUE arguments of the small commands, read into a dataclass of options."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

from harness.errors import ConfigError

Options = TypeVar("Options")


def parse_options(arguments: Sequence[str], kind: type[Options]) -> Options:
    """Return an instance of `kind`; a group of options (`workload.path=FILE`) is a dataclass too.

    Raises `ConfigError` of one line for any mistake.
    """
    # Not with the module: a command that only prints its help needs neither.
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    schema = OmegaConf.structured(kind)
    groups = [name for name in schema if OmegaConf.is_dict(schema[name])]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument!r} is not OPTION=VALUE; --help lists the options")
        group = name.partition(".")[0]
        if group not in schema or (group != name and group not in groups):
            near = difflib.get_close_matches(group, list(schema), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"unknown option {name}{hint}; there are {', '.join(schema)}")
        if name in groups:
            known = ", ".join(f"{name}.{part}" for part in schema[name])
            raise ConfigError(f"{argument} is no option; there are {known}")
        if not value.strip():
            raise ConfigError(f"{name}= has no value; --help lists the options")
    try:
        merged = OmegaConf.merge(schema, OmegaConf.from_dotlist(list(arguments)))
        options = OmegaConf.to_object(merged)
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"an option's value cannot be read: {reason}") from None
    except OmegaConfBaseException as error:
        reason = str(error).split("\n")[0]
        where = getattr(error, "full_key", None)
        raise ConfigError(f"{where}: {reason}" if where else reason) from None
    assert isinstance(options, kind)
    return options
