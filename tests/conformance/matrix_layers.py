"""Our managers of layer groups at their knobs, in pools small enough to press."""

import itertools
from dataclasses import replace

from allocators.base import Geometry
from allocators.contiguous import RESERVATIONS, Contiguous
from allocators.layered.jenga import Jenga
from allocators.layers import LayerGroup
from allocators.virtual import Virtual

PAGE = 64 << 10
#: in a page of a tensor there are 8 tokens, or one state takes a page
KINDS = {
    "full": LayerGroup("full", 2, 4),
    "latent": LayerGroup("latent", 1, 3),
    "sliding": LayerGroup("sliding", 1, 2, window=20),
    "narrow": LayerGroup("sliding", 1, 1, window=5),
    "chunked": LayerGroup("chunked", 1, 2, window=24),
    "state": LayerGroup("state", 1, 6),
    "cross": LayerGroup("cross", 1, 2, encoder_tokens=5),
}
MODELS = {
    "sliding": ("full", "sliding"),
    "sizes": ("narrow", "full", "sliding"),
    "chunked": ("full", "chunked"),
    "windows": ("sliding", "full", "chunked"),
    "latent": ("latent", "full"),
    "state": ("full", "state"),
    "cross": ("full", "cross"),
    "plain": ("full", "sliding", "chunked", "state", "cross"),
    "all": ("full", "latent", "sliding", "chunked", "state", "cross"),
}
#: steps of a batch, for rings
STEP_TOKENS = 96


def pool(model: str, byte: int = 1, **others: int) -> Geometry:
    """Return a pool of about four long sequences; a slot's bytes are `byte` times the above."""
    kinds = tuple(
        replace(KINDS[name], slot_bytes=KINDS[name].slot_bytes * byte) for name in MODELS[model]
    )
    per_token = sum(kind.slot_bytes for kind in kinds if kind.grows)
    return Geometry(
        **{
            "capacity_tokens": 400, "max_seqs": 12, "max_len": 96, "host_tokens": 150,
            "layer_groups": kinds, "pool_bytes": 400 * per_token, "step_tokens": STEP_TOKENS,
            **others,
        }
    )  # fmt: skip


def cases(swaps: tuple[str, ...]) -> dict[str, tuple]:
    """Return cases as those of `matrix`; `swaps` is what each has to have caused besides."""
    found, caused = {}, ("refusals", "copies", *swaps)
    for reservation in RESERVATIONS:
        knobs = {"reservation": reservation, "placement": "first_fit"}
        found[f"contiguous-{reservation}-layers"] = (Contiguous.of, pool("all"), knobs, caused)
    for ring in (True, False):
        # So few tokens a step that a ring goes round before a sequence is full.
        knobs = {"reservation": "grow", "placement": "buddy", "ring": ring}
        name, seen = f"contiguous-ring-{ring}", ("refusals", "copies", "suspends", "resumes")
        found[name] = (Contiguous.of, pool("windows", step_tokens=9), knobs, seen)
    for model, block_size in (("windows", 4), ("state", 1), ("all", 7)):
        seen = caused if block_size > 1 else ("refusals", *swaps)
        knobs = {"block_size": block_size}
        found[f"jenga-{block_size}-{model}"] = (Jenga.of, pool(model), knobs, seen)
    knobs = {"block_size": 4, "prefix_index": "hash"}
    found["jenga-hash"] = (Jenga.of, pool("windows"), knobs, (*caused, "hits"))
    found["jenga-watermark"] = (Jenga.of, pool("all"), {"block_size": 4, "watermark": 0.1}, caused)
    mapped = (*caused, "maps", "unmaps")
    for deferred, background in itertools.product((True, False), repeat=2):
        knobs = {"page_size": "64KiB", "deferred": deferred, "background": background}
        seen = (*mapped, "beside_maps", "beside_unmaps") if background else mapped
        model, layout = ("all", "sliced") if deferred == background else ("windows", "per_layer")
        on = [name for name in ("deferred", "background") if knobs[name]]
        name = "-".join(["virtual-layers", layout, *on])
        found[name] = (Virtual.of, pool(model, PAGE // 8), {**knobs, "layout": layout}, seen)
    for page, window, model, layout in (
        ("256KiB", "64KiB", "windows", "per_layer"),
        ("256KiB", "64KiB", "all", "sliced"),
        ("64KiB", "128KiB", "windows", "sliced"),
    ):
        knobs = {"page_size": page, "window_page_size": window, "layout": layout}
        seen = (*mapped, "beside_maps", "conversions")
        found[f"virtual-sizes-{page}-{model}"] = (Virtual.of, pool(model, PAGE // 8), knobs, seen)
    return found
