"""The packages that belong to this one are found before others of the same name.

`kernels` is also the name of a package of Hugging Face, which many who use transformers have.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIBLINGS = ("allocators", "conf", "kernels", "workloads")


def put_first() -> None:
    """Let this package's folder come first where another would give one of its siblings."""
    if any(_place(name) != ROOT / name for name in SIBLINGS):
        sys.path.insert(0, str(ROOT))
        importlib.invalidate_caches()


def in_the_way() -> str | None:
    """Return what keeps a sibling from being found, in one line with the remedy, or None."""
    for name in SIBLINGS:
        found = _place(name)
        if found != ROOT / name:
            return (
                f"the package {name} is taken from {found}, and kv-harness has one of that name: "
                "import harness before it"
            )
        if _overwritten(name):
            return (
                f"another distribution named {name} is installed over kv-harness's package {name}: "
                "use an environment without it, or install kv-harness from a checkout with pip "
                "install -e"
            )
    return None


def _place(name: str) -> Path | None:
    """Return the folder that a package is or would be imported from."""
    loaded = sys.modules.get(name)
    try:
        spec = find_spec(name) if loaded is None else loaded.__spec__
    except (ImportError, ValueError):
        return None
    folders = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(folders))).resolve() if folders else None


def _overwritten(name: str) -> bool:
    """Whether a distribution of that name is installed into the folder that holds the sibling."""
    return any(ROOT.glob(f"{name}-*.dist-info"))
