"""The one exception of this package, and the wording of its commonest cases."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

#: characters of a message; a file that is no trace may begin with a line of any length
MOST_TEXT = 500


class WorkloadError(ValueError):
    """A workload that cannot be built. Its text is one line: where, what, and what is allowed."""

    def __init__(self, text: str) -> None:
        super().__init__(text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 3]}...")


def one_of(where: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`; else raise, naming the closest and then all."""
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    close = difflib.get_close_matches(str(value), names, n=2)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise WorkloadError(f"{where}={value!r} is unknown; {hint}allowed: {', '.join(names)}")


def number(
    where: str,
    value: object,
    at_least: float | None = None,
    above: float | None = None,
    infinite: bool = False,
    at_most: int | None = None,
) -> float:
    """Return `value` as a float. Raises if it is missing, NaN, outside the bounds, or infinite."""
    bound = ""
    if at_least is not None:
        bound = f" >= {at_least:g}"
    if above is not None:
        bound = f" > {above:g}"
    if at_most is not None:
        bound += f"{' and' * bool(bound)} <= {at_most}"
    if value is None:
        raise WorkloadError(f"{where} is needed: a number{bound}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WorkloadError(f"{where}={value!r} is not a number; expected a number{bound}")
    low = (at_least is not None and value < at_least) or (above is not None and value <= above)
    high = at_most is not None and value > at_most
    # The bounds come first: an int may be too large for a float.
    if low or high or math.isnan(value) or (math.isinf(value) and not infinite):
        kind = "a number" if infinite else "a finite number"
        raise WorkloadError(f"{where}={value} is not allowed; expected {kind}{bound}")
    return float(value)


def whole(where: str, value: object, at_least: int, at_most: int | None = None) -> int:
    """Return `value` as an int. Raises if it is missing, not whole or outside the bounds."""
    checked = number(where, value, at_least=at_least, at_most=at_most)
    if checked != math.floor(checked):
        raise WorkloadError(f"{where}={value} is not allowed; expected a whole number")
    return int(checked)
