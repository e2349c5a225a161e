"""The Triton kernels that write and move slots of caches; see `triton_cache` for their launches."""

# ruff: noqa: ANN001, ANN201 - arguments of kernels are pointers and strides

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def spread(x, head_stride, DIM: tl.constexpr):
    """Return where number `x` of a token lies; a head's numbers are adjacent.

    With `DIM` known to the compiler, 16 bytes are loaded and stored at a time.
    """
    return x // DIM * head_stride + x % DIM


@triton.jit(do_not_specialize=["k_tokens", "v_tokens"])
def store_slots(
    new_k, new_v, k, k_start: tl.int64, v, v_start: tl.int64, slots, writers,
    new_k_row: tl.int64, new_k_head: tl.int64, new_v_row: tl.int64, new_v_head: tl.int64,
    k_page: tl.int64, k_token: tl.int64, k_head: tl.int64,
    v_page: tl.int64, v_token: tl.int64, v_head: tl.int64,
    k_tokens: tl.int64, v_tokens: tl.int64,
    NUMBERS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write keys and values of token `writers[i]`, or i without, to slots[i].

    Grid (slots, blocks of a token's `NUMBERS`).
    """
    i = tl.program_id(0)
    slot, writer = tl.load(slots + i), i.to(tl.int64)
    if writers is not None:
        writer = tl.load(writers + i)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    some = x < NUMBERS
    keys = tl.load(new_k + writer * new_k_row + spread(x, new_k_head, DIM), mask=some)
    values = tl.load(new_v + writer * new_v_row + spread(x, new_v_head, DIM), mask=some)
    k += k_start + slot // k_tokens * k_page + slot % k_tokens * k_token
    v += v_start + slot // v_tokens * v_page + slot % v_tokens * v_token
    tl.store(k + spread(x, k_head, DIM), keys, mask=some)
    tl.store(v + spread(x, v_head, DIM), values, mask=some)


@triton.jit(do_not_specialize=["s_tokens", "t_tokens"])
def move_slots(
    source, source_start: tl.int64, target, target_start: tl.int64, source_slots, target_slots,
    numbers, dim, s_page: tl.int64, s_token: tl.int64, s_head: tl.int64,
    t_page: tl.int64, t_token: tl.int64, t_head: tl.int64, s_tokens: tl.int64, t_tokens: tl.int64,
    WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """target[target_slots[i]] = source[source_slots[i]], `numbers` each.  Grid (slots, blocks).

    `WHOLE`: all numbers of a token are adjacent.
    """
    i = tl.program_id(0)
    read, write = tl.load(source_slots + i), tl.load(target_slots + i)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source += source_start + read // s_tokens * s_page + read % s_tokens * s_token
    target += target_start + write // t_tokens * t_page + write % t_tokens * t_token
    if WHOLE:
        tl.store(target + x, tl.load(source + x, mask=x < numbers), mask=x < numbers)
    else:
        head, d = x // dim, x % dim
        moved = tl.load(source + head * s_head + d, mask=x < numbers)
        tl.store(target + head * t_head + d, moved, mask=x < numbers)
