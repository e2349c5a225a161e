"""How several times of one thing become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import median

#: Others on the machine only ever make it slower, so
#: the least is what it does undisturbed, and the median what is to be expected while they go on.
STATISTICS: dict[str, Callable[[Iterable[float]], float]] = {"median": median, "least": min}
