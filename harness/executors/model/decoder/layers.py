"""Which layers of a model read a window: the order that its counts by layer group do not say.

| family | layers, the first is 0 |
|---|---|
| `gemma3` | every sixth is full: 5, 11, ... (arXiv 2503.19786, section 2) |
| `gpt_oss` | every second is full: 1, 3, ... (model card, arXiv 2508.10925, section 2.2) |
| others | all are full |
"""

from __future__ import annotations

from collections import Counter

from harness.cost.shapes import ModelShape
from harness.executors.model.decoder.errors import DecoderError

#: of a family with layer groups: one layer of so many is full, the last of them
FULL_EVERY = {"gemma3": 6, "gpt_oss": 2}
#: what a layer group may say: its heads are the model's
SAYS = {"kind", "layers", "window"}


def layer_windows(shape: ModelShape) -> list[int | None]:
    """Return how many positions each layer's queries read, in order; None: all.

    Raises `DecoderError`, one line, for layer groups that the family does not have.
    """
    name, every = shape.name or "the model", FULL_EVERY.get(shape.family)
    if every is None:
        if shape.layer_groups:
            raise DecoderError(
                f"{name}: layer groups of family {shape.family} have no decoder; allowed: a "
                f"uniform model, or family {' or '.join(FULL_EVERY)}"
            )
        return [None] * shape.layers
    of_kind: Counter[str] = Counter()
    windows: dict[str, int | None] = {"full": None}
    for group in shape.layer_groups:
        kind = group.kind
        more = [key for key, value in vars(group).items() if value and key not in SAYS]
        if kind not in ("full", "sliding") or more or of_kind[kind]:
            what = f"{kind} layers" + (f" with {', '.join(more)}" if more else "")
            raise DecoderError(
                f"{name}: {what} have no decoder; allowed: one layer group of sliding layers and "
                "one of full ones, with the heads of the model"
            )
        of_kind[kind] += group.layers
        if kind == "sliding":
            windows[kind] = group.window
    order = ["full" if (layer + 1) % every == 0 else "sliding" for layer in range(shape.layers)]
    if Counter(order) != of_kind:
        due = " and ".join(f"{count} {kind}" for kind, count in sorted(Counter(order).items()))
        raise DecoderError(
            f"{name}: of {shape.layers} layers of family {shape.family} {due} are expected, got "
            f"{dict(sorted(of_kind.items()))}"
        )
    return [windows[kind] for kind in order]
