"""Options that were given and that a real run does not read: each is said, none is silent."""

from __future__ import annotations

from collections.abc import Sequence

from harness.comparison.config import Config

#: sections of which a real run reads nothing, and what stands for them there
UNREAD = {
    "cost_model": "its clock is the wall's",
    "software": "its clock is the wall's",
    "hardware": "it serves on this machine",
    "memory": "the pool is kv_memory_gib, kv_tokens or executor.pool_mib",
}


def ignored(config: Config, overrides: Sequence[str]) -> list[str]:
    """Return a note for each of the `overrides` that changes nothing of the run, in their order."""
    if not config.is_real:
        return []
    notes = []
    for override in overrides:
        name = override.lstrip("+").partition("=")[0]
        section = name.partition(".")[0]
        if section in UNREAD:
            notes.append(f"{override} is not read by executor=model: {UNREAD[section]}")
        elif section == "model" and config.executor.weights is not None:
            notes.append(
                f"{override} is not read beside executor.weights: the model's shape is that of "
                "the checkpoint"
            )
    return notes
