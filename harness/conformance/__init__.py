"""A public pytest suite of the invariants in `allocators.base`, for any allocator.

    from harness.conformance import AllocatorConformance
    from mypkg.alloc import Mine

    class TestMine(AllocatorConformance):
        factory = Mine
        knobs = {"block_size": 8}

or, over every allocator installed under the entry-point group `kv_harness.allocators`:

    pytest --pyargs harness.conformance

See `docs/extending.md`.
"""

try:
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
except ImportError:
    raise ImportError(
        "harness.conformance needs pytest and hypothesis: pip install 'kv-harness[test]'"
    ) from None

from harness.conformance.schedule import drive
from harness.conformance.suite import (
    LAYERED_GEOMETRY,
    ROOMY_GEOMETRY,
    SMALL_GEOMETRY,
    AllocatorConformance,
)
from harness.conformance.trial import Trial, Violation

__all__ = [
    "LAYERED_GEOMETRY",
    "ROOMY_GEOMETRY",
    "SMALL_GEOMETRY",
    "AllocatorConformance",
    "Trial",
    "Violation",
    "drive",
]
