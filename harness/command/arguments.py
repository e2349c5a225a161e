"""OPTION=VALUE arguments of the small commands, read into a dataclass of options."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from harness.errors import ConfigError

Options = TypeVar("Options")
#: how options of `python -m harness` begin that mean nothing to a command with runs of its own
OF_ITS_OWN = ("hydra.", "hydra/", "sweep.")


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
        allowed = _allowed(kind, where or "")
        if allowed is not None:
            given = [a.partition("=")[2] for a in arguments if a.partition("=")[0] == where]
            reason = f"{where} must be {allowed}, got {given[-1] if given else reason!r}"
        else:
            reason = f"{where or 'a value'}: {reason}"
        raise ConfigError(reason) from None
    assert isinstance(options, kind)
    return options


#: what the type of an option lets one write
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _allowed(kind: type, option: str) -> str | None:
    """Return what an option of a dataclass of options may be, in words; None if nothing says."""
    name, _, rest = option.partition(".")
    hint: Any = get_type_hints(kind).get(name)
    inner = () if get_origin(hint) is list else get_args(hint)
    parts = [each for each in inner if each is not type(None)] or [hint]
    if rest:
        return _allowed(parts[0], rest) if hasattr(parts[0], "__dataclass_fields__") else None
    if str(parts[0]).startswith("list"):
        return "a list, as in [A,B]"
    return _WORDS.get(parts[0])


def option_name(argument: str) -> str:
    """Return the name of the option that an argument sets, adds or takes away."""
    return argument.lstrip("+~").partition("=")[0]


def check_run_option(argument: str, instead: str = "out=DIR says here where results go") -> None:
    """Raise `ConfigError` for an option of a run that would change nothing in another command.

    instead: what does here what the option would do there.
    """
    name = option_name(argument)
    if name.startswith(OF_ITS_OWN):
        raise ConfigError(f"{name} is an option of python -m harness; {instead}")
