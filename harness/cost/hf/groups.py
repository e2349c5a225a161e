"""Layer groups, from what a config.json says of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.cost.hf.values import Values
from harness.cost.layers import LayerSpec

#: what a file calls its layers in `layer_types`
FULL, SLIDING = "full_attention", "sliding_attention"
CHUNKED, LINEAR = "chunked_attention", "linear_attention"
NAMES = (FULL, SLIDING, CHUNKED, LINEAR)


def grouped(layers: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Return layers that keep the same as one group each, in the order of their first layers.

    A model all of whose layers keep every token has none.
    """
    counts: dict[str, tuple[LayerSpec, int]] = {}
    for layer in layers:
        _, count = counts.get(repr(layer), (layer, 0))
        counts[repr(layer)] = layer, count + 1
    groups = [replace(layer, layers=count) for layer, count in counts.values()]
    if groups == [LayerSpec("full", len(layers))]:
        return []
    return groups


def layer_types(values: Values, layers: int, default: Callable[[int], str] | None) -> list[str]:
    """Return `layer_types`, one name of `NAMES` a layer; if absent, what `default` says of each."""
    given = values.get("layer_types")
    if given is None and default is not None:
        return [default(at) for at in range(layers)]
    if not isinstance(given, list) or len(given) != layers or not {*map(str, given)} <= {*NAMES}:
        raise values.wrong("layer_types", f"{layers} of {', '.join(NAMES)}")
    return given


def window(values: Values, key: str, context: int) -> LayerSpec:
    """Return a layer with the window (or chunk) of `key`; one as long as the context is full.

    The key is required: what a class takes without it need not be the published model's.
    """
    size = values.size(key)
    kind = "chunked" if key == "attention_chunk_size" else "sliding"
    return LayerSpec(kind, window=size) if size < context else LayerSpec()


def windowed(values: Values, types: Sequence[str], context: int) -> list[LayerSpec]:
    """Return the layer groups of layers that attend in full or within a window or chunk."""
    made = {FULL: LayerSpec()}
    if SLIDING in types:
        made[SLIDING] = window(values, "sliding_window", context)
    if CHUNKED in types:
        made[CHUNKED] = window(values, "attention_chunk_size", context)
    for name in types:
        if name not in made:
            raise values.wrong("layer_types", ", ".join([*made, "..."]), f'"{name}"')
    return grouped([made[name] for name in types])
