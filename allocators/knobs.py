"""Knobs that every policy of blocks has, checked."""

from __future__ import annotations

from allocators.base import is_number


def check_blocks(block_size: object, watermark: object, offload: object) -> None:
    """Raise ValueError for a value that no policy of blocks takes."""
    # A bool is an int to Python; `block_size=true` in a YAML is a mistake all the same.
    if type(block_size) is not int or not 1 <= block_size <= 512:
        raise ValueError(f"block_size must be a whole number from 1 to 512, got {block_size!r}")
    if not is_number(watermark) or not 0.0 <= watermark < 1.0:
        raise ValueError(f"watermark must be at least 0 and below 1, got {watermark!r}")
    if type(offload) is not bool:
        raise ValueError(f"offload must be true or false, got {offload!r}")
