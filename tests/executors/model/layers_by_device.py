"""Real runs of models with layer groups, by kind of device: Gemma 3's layers and gpt-oss's.

The tiny models get as many KV heads as make a page-group of a window's layers shorter than a
prompt, so that page-groups fall behind windows and are unmapped while the sequence grows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from harness.measure.options import load_model
from harness.measure.serving import SMALLEST_PAGE
from tests.executors.model.by_device import SAMPLING, Lengths, Stage, Variant

MODELS = ("gpt-oss-tiny", "gemma3-tiny")
HEADS = {"cuda": 16, "cpu": 8}
#: positions that a layer with a window reads, and prompts of up to so many tokens
WINDOW = {"cuda": 128, "cpu": 20}
PROMPT = {"cuda": 120, "cpu": 24}


def variants(device, size):
    """Return what is served with layer groups, what matters most first."""
    page = SMALLEST_PAGE[device]
    sliced, blocks = {"page_size": page, "layout": "sliced"}, {"block_size": 4}
    if device == "cuda":
        blocks = {"block_size": 16}
    if size == "small":
        return [Variant("paged", blocks, "swap"), Variant("virtual", sliced, "recompute")]
    found = [
        Variant(*kind, how)
        for how in ("recompute", "swap")
        for kind in (("paged", blocks), ("virtual", sliced), ("jenga", blocks))
    ]
    found += [
        Variant("paged", {**blocks, "groups": groups}, "recompute")
        for groups in ("uniform", "split")
    ]
    found.append(Variant("contiguous", {"reservation": "max", "placement": "first_fit"}))
    return [*found, Variant("virtual", {"page_size": page})]


def layered_runs(device, size):
    """Yield a way to sample, a model and a variant: of beams, which copy, those with room.

    How much beams share, and with it whether a pool is tight, depends on what they choose.
    """
    if size == "small":
        yield from (
            ("greedy", model, variant)
            for model, variant in zip(MODELS, variants(device, size), strict=True)
        )
        return
    found = variants(device, size)
    yield from (("greedy", model, variant) for model in MODELS for variant in found)
    roomy = [replace(variant, preemption="") for variant in found[:2]]
    yield from (("beam", model, variant) for model in MODELS for variant in roomy)


@dataclass(frozen=True)
class LayeredLengths(Lengths):
    """As `Lengths`; pools are told in tokens whose KV is kept in all layers."""

    device: str = "cpu"

    def tight(self, family, mode):
        # Prompts of several have room there, whole sequences of one or two: they grow threefold.
        prompts = 3.6
        if family == "virtual":  # page-groups of 2 MiB, on a CPU of 64 KiB
            prompts = {"cuda": 5.0, "cpu": 3.0}[self.device]
        return int(prompts * self.page * SAMPLING[mode].sequences)

    @property
    def most(self):
        return 3 * self.page

    def roomy(self, per_row=0):
        return 32 * max(2 * self.page, per_row)


class LayeredStage(Stage):
    """A model with layer groups on a device."""

    simplest = {"reservation": "max", "placement": "first_fit", "ring": False}  # noqa: RUF012

    def __init__(self, device, size, model, **options):
        self._name = model
        super().__init__(device, size, **options)

    def _model(self, device, size):
        shape = load_model(self._name)
        groups = [
            replace(group, window=WINDOW[device]) if group.kind == "sliding" else group
            for group in shape.layer_groups
        ]
        heads = HEADS[device]
        return replace(shape, heads=heads, kv_heads=heads, head_dim=128, layer_groups=groups)

    def _sizes(self, device, size):
        page = self._per_row = PROMPT[device]
        self.step_tokens = 2 * page
        requests = 3 if size == "small" else 4
        return LayeredLengths(page, requests, page, 2 * page, device)


#: the stage of a device, a size and a model, set up once
layered_stage = cache(LayeredStage)
