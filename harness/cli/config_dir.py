"""A folder of the user's own configurations: the flag `--config-dir` of Hydra."""

from __future__ import annotations

from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.cli.installed import SEARCH_PATH
from harness.errors import ConfigError

#: the flag of Hydra that adds a folder of configurations, whose files are checked as ours are
CONFIG_DIR_FLAGS = {"-cd", "--config-dir"}


def without_config_dir(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Return the arguments without Hydra's `--config-dir`, and the folder that it names, if any.

    Raises `ConfigError` for what is no folder.
    """
    rest: list[str] = []
    folder = None
    given = iter(arguments)
    for argument in given:
        flag, equals, value = argument.partition("=")
        if flag not in CONFIG_DIR_FLAGS:
            rest.append(argument)
            continue
        named = value if equals else next(given, "")
        folder = Path(named)
        if not named or not folder.is_dir():
            raise ConfigError(f"{flag} must name a folder, got {named!r}")
    return rest, folder


def with_search_path(lines: list[str], folder: Path) -> list[str]:
    """Return the overrides with `folder` among those in which Hydra looks for configurations."""
    parser = OverridesParser.create()
    places = [f"file://{folder.resolve()}"]
    others = []
    for line in lines:
        if line.partition("=")[0] == SEARCH_PATH:
            places += map(str, parser.parse_override(line).value())
        else:
            others.append(line)
    return [*others, f"{SEARCH_PATH}=[{','.join(map(quoted, places))}]"]


def no_text_in(folder: Path | None) -> str:
    """Return the first configuration of a folder that is no text; the error does not name it."""
    for path in sorted(folder.rglob("*.yaml")) if folder else ():
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
    return "a configuration file"


def quoted(text: str) -> str:
    """Return a text as a value of Hydra's overrides, whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
