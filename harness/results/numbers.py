"""Numbers as people read them."""

from __future__ import annotations


def short_number(value: float, decimals: int = 4) -> str:
    """Three significant digits, at most `decimals` places, no exponent where it can be helped."""
    # Rounded first, or 9.996 would print as 10.00.
    size = abs(float(f"{value:.3g}"))
    if size == 0:
        return "0"
    if size < 0.001 or size >= 1e6:
        return f"{value:.1e}"
    digits = 4 if size < 0.1 else 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:.{min(digits, decimals)}f}"
