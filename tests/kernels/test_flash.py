"""What is passed to FlashAttention, shown with stand-ins that do what its documentation says."""

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kernels import flash
from kernels.batch import Batch
from kernels.rows import place
from tests.kernels.cases import close, make
from tests.kernels.host_reads import no_host_reads


def attend(q, k_rows, v_rows, starts, scale, left=-1):
    """Causal attention of each row's last queries over its own keys, grouped heads.

    left: how many positions before its own a query sees, -1: all.
    """
    out = torch.empty_like(q)
    for i, (k, v) in enumerate(zip(k_rows, v_rows, strict=True)):
        first, last = int(starts[i]), int(starts[i + 1])
        group = q.shape[1] // k.shape[1]
        k, v = (x.float().repeat_interleave(group, 1) for x in (k, v))
        scores = torch.einsum("nhd,lhd->hnl", q[first:last].float(), k) * scale
        new, length = last - first, len(k)
        future = torch.ones(new, length).triu(length - new + 1).bool()
        if left >= 0:
            future |= torch.ones(new, length).tril(length - new - left - 1).bool()
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        out[first:last] = torch.einsum("hnl,lhd->nhd", weights, v).to(q.dtype)
    return out


def pages_of(cache, table, lengths):
    return [
        cache[table[i].long()].flatten(0, 1)[: int(n)] for i, n in enumerate(lengths)
    ]  # fmt: skip


#: what the operator takes in torch 2.11; pages came with 2.12
TAKEN = (
    *("query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p"),
    *("is_causal", "return_debug_mask", "scale", "window_size_left", "window_size_right"),
    *("seqused_k", "alibi_slopes"),
)


class TorchOperator:
    """Stands in for `torch.ops.aten._flash_attention_forward` of one version of torch."""

    def __init__(self, *more, error=0.0):
        self.error = error
        names = [SimpleNamespace(name=name) for name in (*TAKEN, *more)]
        self.default = SimpleNamespace(_schema=SimpleNamespace(arguments=names))

    def __call__(self, q, k, v, cu_q, cu_k, max_q, max_k, dropout, causal, debug, *, scale,
                 seqused_k, block_table=None, window_size_left=-1,
                 window_size_right=-1):  # fmt: skip
        assert (dropout, causal, debug) == (0.0, True, False)
        assert cu_q.dtype == seqused_k.dtype == torch.int32
        assert max_q == cu_q.diff().max()
        assert max_k >= seqused_k.max()
        assert window_size_right == min(window_size_left, 0)
        if block_table is None:
            assert cu_k.dtype == torch.int32
            rows = flat_rows(k, v, cu_k[:-1], seqused_k)
        else:
            assert cu_k is None
            assert "block_table" in [a.name for a in self.default._schema.arguments]
            assert block_table.dtype == torch.int32
            rows = [pages_of(x, block_table, seqused_k) for x in (k, v)]
        return attend(q, *rows, cu_q, scale, window_size_left) + self.error, None, None, None, None


def flat_rows(k, v, starts, lengths):
    return [
        [x[int(s) : int(s) + int(n)] for s, n in zip(starts, lengths, strict=True)] for x in (k, v)
    ]


def fa3_paged(q, k, v, *, cache_seqlens, page_table, cu_seqlens_q, max_seqlen_q, softmax_scale,
              causal, window_size=(-1, -1)):  # fmt: skip
    assert causal
    assert window_size[1] == min(window_size[0], 0)
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    rows = (pages_of(x, page_table, cache_seqlens) for x in (k, v))
    return attend(q, *rows, cu_seqlens_q, softmax_scale, window_size[0])


def fa3_flat(q, k, v, cu_q, cu_k, max_q, max_k, *, seqused_k, softmax_scale, causal,
             window_size=(-1, -1)):  # fmt: skip
    assert causal
    rows = flat_rows(k, v, cu_k[:-1], seqused_k)
    return attend(q, *rows, cu_q, softmax_scale, window_size[0])


def fa2(q, k, v, cu_q, cu_k, max_q, max_k, *, softmax_scale, causal, block_table,
        window_size=(-1, -1)):  # fmt: skip
    assert causal
    assert k.shape[1] % 256 == 0
    rows = (pages_of(x, block_table, cu_k.diff()) for x in (k, v))
    return attend(q, *rows, cu_q, softmax_scale, window_size[0])


def fa2_cache(q, k_cache, v_cache, *, cache_seqlens, cache_batch_idx, softmax_scale, causal,
              window_size=(-1, -1)):  # fmt: skip
    """Index times stride is where a row begins, as in the kernel; the index is not checked."""
    assert causal
    assert cache_seqlens.dtype == cache_batch_idx.dtype == torch.int32
    count, new = q.shape[:2]
    assert k_cache.shape[1] >= cache_seqlens.max()
    rows = [
        [
            x.as_strided(
                (int(n), *x.shape[2:]), x.stride()[1:], x.storage_offset() + int(i) * x.stride(0)
            )
            for i, n in zip(cache_batch_idx, cache_seqlens, strict=True)
        ]
        for x in (k_cache, v_cache)
    ]
    starts = torch.arange(count + 1) * new
    return attend(q.flatten(0, 1), *rows, starts, softmax_scale, window_size[0]).view_as(q)


@pytest.fixture(autouse=True)
def _fresh_trials():
    """Trials are remembered, so forget them; torch's own kernel needs a GPU and refuses."""
    flash.find.cache_clear()
    yield
    flash.find.cache_clear()


def install(monkeypatch, name, **functions):
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(**functions, __spec__=object()))


CASES = {"page-16": {"page": 16}, "page-256": {"page": 256}, "flat": {}}


def use_torch(monkeypatch, operator):
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", operator)


def computes(kind, queries=(30, 1, 5), heads=(4, 2), window=None):
    case = make([30, 7, 300], queries, dtype=torch.float16, heads=heads, **CASES[kind])
    case.window = window
    rows = place(case.layout, case.k_cache, case.queries)
    out = case.poisoned_out()
    case.k_cache.nan_to_num_(0.0)
    case.v_cache.nan_to_num_(0.0)
    flash.prefill(Batch.of(case.q, case.k_cache, case.v_cache, rows, case.scale, out, window))
    close(out, case)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("candidate", ["torch", "flash_attn_interface"])
@pytest.mark.parametrize("queries", [(30, 1, 5), (1, 1, 1)], ids=["prefill", "decode"])
def test_each_candidate_is_called_as_it_is_documented(monkeypatch, candidate, kind, queries):
    if candidate == "torch":
        use_torch(monkeypatch, TorchOperator("block_table", "num_splits"))
    else:
        install(monkeypatch, candidate, flash_attn_with_kvcache=fa3_paged,
                flash_attn_varlen_func=fa3_flat)  # fmt: skip
    for heads in ((4, 2), (2, 2)):
        computes(kind, queries, heads)
    for window in (1, 4, 29, 400):
        computes(kind, queries, window=window)


def test_torch_2_11_reads_contiguous_rows_and_no_pages(monkeypatch):
    use_torch(monkeypatch, TorchOperator())
    computes("flat")
    support = flash.find("float16", 64, 16, "cpu")[1]
    assert re.search(r"torch: torch \S+ reads no pages", support.reason)


def test_the_operator_of_this_torch_takes_what_it_is_given():
    """Nothing is computed for shapes without numbers, but names and types are checked."""
    for kind in ("flat", "page-16"):
        case = make([30, 7], [30, 1], dtype=torch.float16, **CASES[kind])
        rows = place(case.layout, case.k_cache, case.queries)
        batch = Batch.of(case.q, case.k_cache, case.v_cache, rows, case.scale, case.q)
        batch = replace(batch, q=batch.q.to("meta"), keys=batch.keys.to("meta"),
                        values=batch.values.to("meta"))  # fmt: skip
        for window in (None, 4):
            assert flash.torch_flash(replace(batch, window=window)).shape == case.q.shape


@pytest.mark.parametrize("queries", [(30, 1, 5), (3, 3, 3), (1, 1, 1)], ids=str)
def test_flash_2_reads_contiguous_rows_by_their_index(monkeypatch, queries):
    install(monkeypatch, "flash_attn", flash_attn_with_kvcache=fa2_cache)
    computes("flat", queries)
    for window in (1, 4, 29, 400):
        computes("flat", queries, window=window)


def test_a_decode_of_contiguous_rows_is_passed_no_window(monkeypatch):
    """The kernel that is told one reads the KV of a group once for each of its heads."""
    told = []

    def noted(q, *args, **options):
        told.append(options)
        return fa2_cache(q, *args, **options)

    install(monkeypatch, "flash_attn", flash_attn_with_kvcache=noted)
    computes("flat", (1, 1, 1), window=4)
    assert "window_size" not in told[-1]


def test_a_kernel_that_forgets_the_window_is_refused(monkeypatch):
    def forgets(*args, window_size=None, **options):
        return fa2(*args, **options)

    install(monkeypatch, "flash_attn", flash_attn_varlen_func=forgets)
    assert flash.find("float16", 64, 256, "cpu")[1].ok
    support = flash.find("float16", 64, 256, "cpu", windowed=True)[1]
    assert "flash_attn: differs from the reference" in support.reason


def test_a_call_waits_for_no_device(monkeypatch):
    """The trial may; what is timed may not.  Each call is made, and does nothing."""
    called = []

    def nothing(q, *args, **options):
        called.append(q)
        return q

    install(monkeypatch, "flash_attn", flash_attn_with_kvcache=nothing,
            flash_attn_varlen_func=nothing)  # fmt: skip
    for kind in ("flat", "page-256"):
        case = make([30, 7, 300], [30, 1, 5], dtype=torch.float16, **CASES[kind])
        rows = place(case.layout, case.k_cache, case.queries)
        batch = Batch.of(case.q, case.k_cache, case.v_cache, rows, case.scale, case.q.clone())
        monkeypatch.setattr(flash, "find", lambda *question: (flash.flash_2, None))
        with no_host_reads():
            flash.prefill(batch)
    assert len(called) == 3 + 1


def test_flash_2_takes_pages_of_a_multiple_of_256_only(monkeypatch):
    install(monkeypatch, "flash_attn", flash_attn_varlen_func=fa2)
    assert flash.find("float16", 64, 256, "cpu")[1].ok
    attend, support = flash.find("float16", 64, 16, "cpu")
    assert attend is None
    assert "pages of a multiple of 256 tokens, not 16" in support.reason
    assert "torch: Could not run 'aten::_flash_attention_forward'" in support.reason


@pytest.mark.parametrize("page", [1, 2, 16, None])
def test_the_smallest_pages_are_tried(monkeypatch, page):
    use_torch(monkeypatch, TorchOperator("block_table"))
    assert flash.find("float16", 64, page, "cpu")[1].ok


def test_a_kernel_that_answers_wrongly_is_refused(monkeypatch):
    use_torch(monkeypatch, TorchOperator("block_table", error=0.1))
    support = flash.find("bfloat16", 64, 16, "cpu")[1]
    assert not support.ok
    assert "torch: differs from the reference by 0.1" in support.reason
    assert "flash_attn" in support.reason
