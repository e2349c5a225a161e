"""What a number depends on besides the configuration: software versions, machine, commit.

Nothing here names a person, a host or a path, so that a summary can be published as it is.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTION = "kv-harness"
ROOT = Path(__file__).resolve().parents[2]


def describe_environment() -> dict[str, Any]:
    """Python, platform, CPU, memory, dependency versions, GPU and commit; None where unknown."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "cpu_model": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "packages": dict(_installed()),
        "gpu": gpu(),
        "git": _checkout(),
    }


# Asked once a process, whose code is the one that it began with: a sweep has many jobs in one.
@cache
def _installed() -> dict[str, str | None]:
    return package_versions()


@cache
def _checkout() -> dict[str, Any] | None:
    return git_state()


def package_versions() -> dict[str, str | None]:
    """Installed version of each core dependency, read from metadata: nothing is imported."""
    names = sorted({re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in _required()})
    return {name: installed_version(name) for name in [DISTRIBUTION, *names]}


def _required() -> list[str]:
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        # Run from a checkout that was never installed.
        project = ROOT / "pyproject.toml"
        if not project.is_file():
            return []
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [line for line in required if "extra ==" not in line]


def cpu_model() -> str | None:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or None


def gpu() -> dict[str, Any] | None:
    """The first CUDA device, if torch is loaded already; torch is never imported for this."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
    }


def git_state(root: Path = ROOT) -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout this package lies in; None outside one."""
    top = _git(root, "rev-parse", "--show-toplevel")
    # Installed below somebody else's checkout, git would report their commit as ours.
    if top is None or Path(top).resolve() != root.resolve():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().total)
