"""Sizes of page-groups and virtual ranges (vAttention, section 5.2 and its code)."""

from __future__ import annotations

from dataclasses import dataclass

from allocators.base import Geometry, IntArray, NeverFits, Unsupported, one_of

PAGE_BYTES = {"64KiB": 64 << 10, "128KiB": 128 << 10, "256KiB": 256 << 10, "2MiB": 2 << 20}


def check_window_page(window_page_size: object) -> None:
    """Raise ValueError for a value that no model would take."""
    if window_page_size is not None and window_page_size not in tuple(PAGE_BYTES):
        raise ValueError(
            f"window_page_size must be null or one of {', '.join(PAGE_BYTES)}, "
            f"got {window_page_size!r}"
        )


def page_group_tokens(geometry: Geometry, page_bytes: int, layout: str) -> int:
    """Return how many tokens one page-group holds."""
    return page_bytes // _token_bytes(geometry, layout)


def _token_bytes(geometry: Geometry, layout: str) -> int:
    """Return the bytes of one token in one virtual tensor."""
    return geometry.token_bytes * (geometry.layers if layout == "sliced" else 1)


@dataclass(frozen=True, slots=True)
class RangeShape:
    """What a virtual range consists of.

    Padded pages each hold `page_tokens` whole tokens, so that they can be shared.  Dense ones, as
    vAttention has them, are filled to the last byte: tokens run over page ends, and `range_pages`
    pages hold `tail_tokens` more than range_pages x page_tokens.
    """

    page_bytes: int
    page_tokens: int
    pages_per_group: int
    page_group_bytes: int  # on all ranks
    num_page_groups: int
    range_pages: int
    range_tokens: int  # from one range to the next
    tail_tokens: int

    def tail_slots(self, ranges: IntArray) -> IntArray:
        """Return the first slot of what ranges hold behind their pages' whole tokens, [ranges].

        These slots are numbered behind those of the pool, `tail_tokens` a range.
        """
        return self.num_page_groups * self.page_tokens + ranges * self.tail_tokens

    @classmethod
    def of(cls, geometry: Geometry, page_size: str, layout: str, dense: bool) -> RangeShape:
        """Raises `Unsupported` for a page below one token, `NeverFits` for a pool below a group."""
        one_of("page_size", page_size, PAGE_BYTES)
        one_of("layout", layout, ("per_layer", "sliced"))
        page_bytes, token_bytes = PAGE_BYTES[page_size], _token_bytes(geometry, layout)
        tokens = page_group_tokens(geometry, page_bytes, layout)
        if tokens < 1:
            raise Unsupported(f"a {page_size} page ({layout}) holds less than one token's KV")
        per_group = 2 if layout == "sliced" else 2 * geometry.layers
        group_bytes = page_bytes * per_group * geometry.ranks
        num_page_groups = geometry.capacity_bytes // group_bytes
        if num_page_groups < 1:
            raise NeverFits(
                f"the pool of {geometry.capacity_bytes} bytes holds no page-group of "
                f"{group_bytes} bytes"
            )
        pages = -(-geometry.max_len // tokens)
        dense_pages = -(-geometry.max_len * token_bytes // page_bytes)
        dense = dense and dense_pages < pages
        pages = dense_pages if dense else pages
        return cls(
            page_bytes=page_bytes,
            page_tokens=tokens,
            pages_per_group=per_group,
            page_group_bytes=group_bytes,
            num_page_groups=num_page_groups,
            range_pages=pages,
            range_tokens=pages * page_bytes // token_bytes if dense else pages * tokens,
            tail_tokens=geometry.max_len - pages * tokens if dense else 0,
        )
