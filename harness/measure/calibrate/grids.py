"""Which amounts are measured; between them the cost model draws lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Amounts in tokens, rows and bytes."""

    tokens: tuple[int, ...]  # of a step: linear layers, stores
    rows: tuple[int, ...]  # of a step: sampling
    batches: tuple[int, ...]  # of decode
    pages: tuple[int, ...]  # tokens of a page: decode and prefill
    served: tuple[int, ...]  # of a step of the runs that measure the overhead
    context: tuple[int, ...]  # of decode
    new: tuple[int, ...]  # of a prompt piece; attention grows as its square, so closer together
    past: tuple[int, ...]
    moved: tuple[int, ...]  # tokens copied or swapped in one grant
    table: tuple[int, ...]  # bytes of a block table
    page_sizes: tuple[str, ...] = ("64KiB", "128KiB", "256KiB", "2MiB")


FULL = Grid(
    tokens=(1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048),
    rows=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    batches=(1, 4, 16, 64, 256),
    pages=(1, 4, 16, 64, 256),
    served=(1, 4, 16, 64, 128),
    context=(16, 128, 512, 1024, 2048, 8192, 32768),
    new=(1, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048),
    past=(0, 512, 2048, 8192),
    moved=(1, 16, 64, 256, 1024),
    table=(4, 1024, 16 * 1024, 256 * 1024),
)
QUICK = Grid(
    tokens=(1, 4, 16, 64, 256, 1024),
    rows=(1, 4, 16, 64),
    batches=(1, 4, 16, 64),
    pages=(1, 16, 256),
    served=(1, 16, 64),
    context=(16, 256, 1024),
    new=(1, 32, 128, 256, 512, 1024),
    past=(0, 512),
    moved=(1, 64, 512),
    table=(4, 16 * 1024),
)


def tiles(amounts: tuple[int, ...], tile: int) -> list[int]:
    """Return the amounts in whole tiles: what lies between costs as much as the next."""
    return sorted({-(-n // tile) * tile for n in amounts})


def up_to(amounts: tuple[int, ...], most: int) -> list[int]:
    """Return the amounts up to `most`, which ends the list if anything lies beyond it."""
    kept = [amount for amount in amounts if amount < most]
    return [*kept, most] if len(kept) < len(amounts) else kept
