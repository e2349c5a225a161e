"""Paged with layer groups for the suite: each rule of `groups`, each kind, hits or none."""

from __future__ import annotations

from typing import Any

from allocators.base import Geometry
from allocators.paged import Paged
from tests.conformance.matrix_layers import pool

BYTE = 8
CASES = [
    ("hybrid", "plain", {}, ("suspends", "resumes")),
    ("hybrid", "sizes", {"prefix_index": "hash"}, ("hits",)),
    ("hybrid", "chunked", {"prefix_index": "hash", "free_order": "by_age"}, ("hits",)),
    ("hybrid", "state", {"watermark": 0.1}, ()),
    ("uniform", "cross", {}, ("suspends", "resumes")),
    ("uniform", "sliding", {"prefix_index": "hash"}, ("hits",)),
    ("uniform", "latent", {}, ()),
    ("split", "plain", {"window_share": 0.7}, ("suspends", "resumes")),
    ("split", "sliding", {"prefix_index": "hash", "window_share": 0.5}, ("hits",)),
]


def cases() -> dict[str, tuple[Any, Geometry, dict[str, Any], tuple[str, ...]]]:
    """Return cases as `matrix.cases` does; every one is refused and copies."""
    found = {}
    for groups, model, knobs, caused in CASES:
        name = "-".join(["paged", groups, model, *(["hash"] if "hits" in caused else [])])
        knobs = {"groups": groups, "block_size": 4, **knobs}
        found[name] = (Paged.of, pool(model, BYTE), knobs, ("refusals", "copies", *caused))
    return found
