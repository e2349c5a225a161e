"""Allocators of other packages that are installed: their `conf` folders and the names in them."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

#: Hydra's option for the folders in which it looks for configurations
SEARCH_PATH = "hydra.searchpath"
ENTRY_POINTS = "kv_harness.allocators"
OWN_PACKAGES = ("allocators",)


def search_path_override(arguments: list[str]) -> list[str]:
    """Return the override that lets Hydra find the `conf` folders of installed allocators."""
    if any(argument.startswith(SEARCH_PATH) for argument in arguments):
        return []
    found = [f"pkg://{name}.conf" for name in _packages() if _folders(name)]
    return [f"{SEARCH_PATH}=[{','.join(found)}]"] if found else []


def installed_allocators() -> list[str]:
    """Return the names that installed packages add to the group `allocator`, sorted."""
    folders = (folder for name in _packages() for folder in _folders(name))
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


def _packages() -> list[str]:
    packages = {entry.module.partition(".")[0] for entry in entry_points(group=ENTRY_POINTS)}
    return sorted(packages - set(OWN_PACKAGES))


def _folders(package: str) -> list[Path]:
    spec = find_spec(package)
    roots = (spec.submodule_search_locations or []) if spec else []
    folders = (Path(root) / "conf" / "allocator" for root in roots)
    return [folder for folder in folders if folder.is_dir()]
