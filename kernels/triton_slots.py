"""The Triton kernel that moves slots of caches; see `triton_cache` for its launches."""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["s_tokens", "t_tokens"])
def move_slots(
    source, source_start: tl.int64, target, target_start: tl.int64, source_slots, target_slots,
    numbers, dim, s_page: tl.int64, s_token: tl.int64, s_head: tl.int64,
    t_page: tl.int64, t_token: tl.int64, t_head: tl.int64, s_tokens: tl.int64, t_tokens: tl.int64,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """target[target_slots[i]] = source[source_slots[i]], `numbers` each.  Grid (slots, blocks)."""
    i = tl.program_id(0)
    source, target = source + source_start, target + target_start
    from_slot, to_slot = tl.load(source_slots + i), tl.load(target_slots + i)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    head, d = x // dim, x % dim
    read = (from_slot // s_tokens) * s_page + (from_slot % s_tokens) * s_token + head * s_head + d
    write = (to_slot // t_tokens) * t_page + (to_slot % t_tokens) * t_token + head * t_head + d
    tl.store(target + write, tl.load(source + read, mask=x < numbers), mask=x < numbers)
