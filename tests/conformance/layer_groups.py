"""Paged with layer groups for the suite: each rule of `groups`, each kind, hits or none."""

from __future__ import annotations

from typing import Any

from allocators.base import Geometry
from allocators.layers import LayerGroup
from allocators.paged import Paged

KINDS = {
    "full": LayerGroup("full", 1, 16),
    "latent": LayerGroup("latent", 2, 24),
    "sliding": LayerGroup("sliding", 2, 32, window=20),
    "narrow": LayerGroup("sliding", 1, 8, window=5),
    "chunked": LayerGroup("chunked", 1, 16, window=24),
    "state": LayerGroup("state", 1, 64),
    "cross": LayerGroup("cross", 1, 16, encoder_tokens=5),
}
#: what a model of the suite has, and whether its prompts can be looked up
MODELS = {
    "sliding": ("full", "sliding"),
    "windows": ("narrow", "full", "sliding"),
    "chunked": ("full", "chunked"),
    "latent": ("latent", "full"),
    "state": ("full", "state"),
    "cross": ("full", "cross"),
    "all": ("full", "sliding", "chunked", "state", "cross"),
}
CASES = [
    ("hybrid", "all", {}, ("suspends", "resumes")),
    ("hybrid", "windows", {"prefix_index": "hash"}, ("hits",)),
    ("hybrid", "chunked", {"prefix_index": "hash", "free_order": "by_age"}, ("hits",)),
    ("hybrid", "state", {"watermark": 0.1}, ()),
    ("uniform", "cross", {}, ("suspends", "resumes")),
    ("uniform", "sliding", {"prefix_index": "hash"}, ("hits",)),
    ("uniform", "latent", {}, ()),
    ("split", "all", {"window_share": 0.7}, ("suspends", "resumes")),
    ("split", "sliding", {"prefix_index": "hash", "window_share": 0.5}, ("hits",)),
]


def geometry(names: tuple[str, ...]) -> Geometry:
    """Return a pool that such layers fill: 400 tokens of all that grow."""
    groups = tuple(KINDS[name] for name in names)
    bytes_per_token = sum(group.slot_bytes for group in groups if group.grows)
    return Geometry(
        capacity_tokens=400,
        max_seqs=12,
        max_len=96,
        host_tokens=150,
        layer_groups=groups,
        pool_bytes=400 * bytes_per_token,
        step_tokens=96,
    )


def cases() -> dict[str, tuple[Any, Geometry, dict[str, Any], tuple[str, ...]]]:
    """Return cases as `matrix.cases` does; every one is refused and copies."""
    found = {}
    for groups, model, knobs, caused in CASES:
        name = "-".join(["paged", groups, model, *(["hash"] if "hits" in caused else [])])
        knobs = {"groups": groups, "block_size": 4, **knobs}
        found[name] = (Paged.of, geometry(MODELS[model]), knobs, ("refusals", "copies", *caused))
    return found
