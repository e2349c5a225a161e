"""Our own allocators at every knob that changes a decision, in pools small enough to press.

Each swaps; some of them do so once more without host memory, where every suspension is refused.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from allocators.base import Allocator, Geometry
from allocators.contiguous import RESERVATIONS, Contiguous
from allocators.paged import Paged
from allocators.placement import PLACEMENTS
from allocators.virtual import PAGE_BYTES, Virtual
from harness.conformance import SMALL_GEOMETRY
from tests.conformance import matrix_layers

#: what the seeded schedule has to have caused where there is host memory, and where there is none
SWAPS = ("suspends", "resumes", "suspend_refusals", "resume_refusals")
NO_HOST = ("suspend_refusals",)

#: what a policy has to have done beside a step
BESIDE = ("beside_maps", "beside_unmaps")

Case = tuple[type[Allocator], Geometry, dict[str, Any], tuple[str, ...]]


WITHOUT_HOST = (
    "paged-16", "paged-hash-lru", "contiguous-max-buddy", "contiguous-grow-first_fit",
    "virtual-vattention-copy", "virtual-vattention-alias-deferred-background",
    "virtual-paper-hash-deferred-background-eager",
)  # fmt: skip


def with_page_group_tokens(tokens: int, page_size: str, layout: str) -> Geometry:
    """A model shape whose page-group of this size holds `tokens` tokens."""
    layers = 2
    per_tensor = tokens * (layers if layout == "sliced" else 1)
    head_dim = PAGE_BYTES[page_size] // (per_tensor * 8 * 2)
    return replace(SMALL_GEOMETRY, layers=layers, kv_heads=8, head_dim=head_dim)


def cases() -> dict[str, Case]:
    found = {
        name: (build, pool, knobs, (*caused, *SWAPS))
        for name, (build, pool, knobs, caused) in _policies().items()
    }
    for name in WITHOUT_HOST:
        build, pool, knobs, caused = found[name]
        caused = (*(what for what in caused if what not in SWAPS), *NO_HOST)
        found[f"{name}-no-host"] = (build, replace(pool, host_tokens=0), knobs, caused)
    return found | matrix_layers.cases(SWAPS)


def _policies() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for block_size in (1, 7, 16, 512):
        pool = SMALL_GEOMETRY
        if block_size == 512:
            pool = replace(pool, capacity_tokens=5 * 512 + 9, max_len=600, host_tokens=3 * 512)
        caused = ("refusals",) if block_size == 1 else ("refusals", "copies")
        found[f"paged-{block_size}"] = (Paged, pool, {"block_size": block_size}, caused)
    found["paged-watermark"] = (
        Paged, SMALL_GEOMETRY, {"block_size": 16, "watermark": 0.1}, ("refusals", "copies"),
    )  # fmt: skip
    caused = ("refusals", "copies", "hits")
    for index, eviction in (("hash", "lru"), ("hash", "s3fifo"), ("radix", "lru")):
        knobs = {"block_size": 4, "prefix_index": index, "eviction": eviction}
        found[f"paged-{index}-{eviction}"] = (Paged, SMALL_GEOMETRY, knobs, caused)
    by_age = {"block_size": 4, "prefix_index": "hash", "free_order": "by_age"}
    found["paged-hash-lru-by-age"] = (Paged, SMALL_GEOMETRY, by_age, caused)
    # A tier of a few blocks, which drops what it saved, and one that holds all of it.
    for host_tokens in (80, 200, 600):
        pool = replace(SMALL_GEOMETRY, host_tokens=host_tokens)
        knobs = {"block_size": 4, "prefix_index": "hash", "offload": True}
        caused = ("refusals", "copies", "hits", "saves", "fetches")
        found[f"paged-offload-{host_tokens}"] = (Paged, pool, knobs, caused)
    for reservation, placement in itertools.product(RESERVATIONS, PLACEMENTS):
        knobs = {"reservation": reservation, "placement": placement}
        caused = ("refusals", "copies")
        found[f"contiguous-{reservation}-{placement}"] = (Contiguous, SMALL_GEOMETRY, knobs, caused)
    caused = ("refusals", "copies", "maps", "unmaps")
    found |= _virtual(caused)
    for page_size, layout in itertools.product(PAGE_BYTES, ("per_layer", "sliced")):
        # 11 tokens do not divide a page: the rest of it is lost, and has to be accounted for.
        tokens = 11 if page_size == "128KiB" else 8
        pool = with_page_group_tokens(tokens, page_size, layout)
        knobs = {"page_size": page_size, "layout": layout}
        found[f"virtual-{page_size}-{layout}"] = (Virtual, pool, knobs, caused)
    # 13 page-groups hold 96 tokens that run over page ends; if they did not, 14 would be needed.
    dense = replace(SMALL_GEOMETRY, head_dim=518)
    knobs = {"page_size": "64KiB", "sharing": "copy"}
    found["virtual-copy-dense"] = (Virtual, dense, knobs, (*caused, *BESIDE))
    return found


def _virtual(caused: tuple[str, ...]) -> dict[str, Case]:
    """By vAttention's code and by its paper, which alone has `eager`; a thread has work beside."""
    found: dict[str, Case] = {}
    for rules, sharing, index in (
        ("vattention", "alias", "none"), ("vattention", "copy", "none"),
        ("vattention", "alias", "hash"), ("paper", "alias", "none"), ("paper", "alias", "hash"),
    ):  # fmt: skip
        options = ["deferred", "background"] + ["eager"] * (rules == "paper")
        kind = "-".join(["virtual", rules, sharing if index == "none" else index])
        for on in itertools.product((False, True), repeat=len(options)):
            chosen = dict(zip(options, on, strict=True))
            knobs = {"page_size": "64KiB", "rules": rules, "sharing": sharing, **chosen}
            seen = (*caused, *BESIDE) if chosen["background"] else caused
            if index != "none":
                knobs["prefix_index"], seen = index, (*seen, "hits")
            name = "-".join([kind, *(option for option, use in chosen.items() if use)])
            found[name] = (Virtual, SMALL_GEOMETRY, knobs, seen)
    paper = {"page_size": "64KiB", "rules": "paper"}
    for kind, pool, knobs in (
        ("paper-reclaim-half", SMALL_GEOMETRY, {"reclaim_free": 0.5}),
        ("paper-reclaim-none", SMALL_GEOMETRY, {"reclaim_free": 0.0}),
        ("paper-copy", SMALL_GEOMETRY, {"sharing": "copy"}),
        ("paper-hash-reclaim-half", with_page_group_tokens(4, "64KiB", "per_layer"),
         {"reclaim_free": 0.5, "prefix_index": "hash"}),
    ):  # fmt: skip
        found[f"virtual-{kind}"] = (Virtual, pool, paper | knobs, (*caused, *BESIDE))
    return found
