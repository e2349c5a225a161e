"""What is passed to FlashAttention, shown with stand-ins that do what its documentation says."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import varlen

from kernels import flash
from kernels.batch import Batch
from kernels.rows import place
from tests.kernels.cases import close, make


def attend(q, k_rows, v_rows, starts, scale):
    """Causal attention of each row's last queries over its own keys, grouped heads."""
    out = torch.empty_like(q)
    for i, (k, v) in enumerate(zip(k_rows, v_rows, strict=True)):
        first, last = int(starts[i]), int(starts[i + 1])
        group = q.shape[1] // k.shape[1]
        k, v = (x.float().repeat_interleave(group, 1) for x in (k, v))
        scores = torch.einsum("nhd,lhd->hnl", q[first:last].float(), k) * scale
        new, length = last - first, len(k)
        future = torch.ones(new, length).triu(length - new + 1).bool()
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        out[first:last] = torch.einsum("hnl,lhd->nhd", weights, v).to(q.dtype)
    return out


def pages_of(cache, table, lengths):
    return [
        cache[table[i].long()].flatten(0, 1)[: int(n)] for i, n in enumerate(lengths)
    ]  # fmt: skip


def torch_stand_in(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa,
                   seqused_k, block_table):  # fmt: skip
    assert window_size == (-1, 0)
    assert enable_gqa == (q.shape[1] != k.shape[-2])
    assert cu_q.dtype == seqused_k.dtype == torch.int32
    assert max_q == cu_q.diff().max()
    assert max_k == seqused_k.max()
    if block_table is None:
        rows = [
            [x[int(s) : int(s) + int(n)] for s, n in zip(cu_k[:-1], seqused_k, strict=True)]
            for x in (k, v)
        ]
    else:
        assert cu_k is None
        assert block_table.dtype == torch.int32
        rows = [pages_of(x, block_table, seqused_k) for x in (k, v)]
    return attend(q, *rows, cu_q, scale)


def fa3_paged(q, k, v, *, cache_seqlens, page_table, cu_seqlens_q, max_seqlen_q, softmax_scale,
              causal):  # fmt: skip
    assert causal
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    rows = (pages_of(x, page_table, cache_seqlens) for x in (k, v))
    return attend(q, *rows, cu_seqlens_q, softmax_scale)


def fa3_flat(q, k, v, cu_q, cu_k, max_q, max_k, *, seqused_k, softmax_scale, causal):
    assert causal
    rows = [
        [x[int(s) : int(s) + int(n)] for s, n in zip(cu_k[:-1], seqused_k, strict=True)]
        for x in (k, v)
    ]
    return attend(q, *rows, cu_q, softmax_scale)


def fa2(q, k, v, cu_q, cu_k, max_q, max_k, *, softmax_scale, causal, block_table):
    assert causal
    assert k.shape[1] % 256 == 0
    rows = (pages_of(x, block_table, cu_k.diff()) for x in (k, v))
    return attend(q, *rows, cu_q, softmax_scale)


@pytest.fixture(autouse=True)
def _fresh_trials(monkeypatch):
    """Trials are remembered, so forget them; refuse torch's own kernel, which needs a GPU."""
    flash.find.cache_clear()

    def absent(*args, **kwargs):
        raise RuntimeError("paged KV is not supported by this build")

    monkeypatch.setattr(varlen, "varlen_attn", absent)
    yield
    flash.find.cache_clear()


def install(monkeypatch, name, **functions):
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(**functions, __spec__=object()))


CASES = {"page-16": {"page": 16}, "page-256": {"page": 256}, "flat": {}}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("candidate", ["torch", "flash_attn_interface"])
def test_each_candidate_is_called_as_it_is_documented(monkeypatch, candidate, kind):
    if candidate == "torch":
        monkeypatch.setattr(varlen, "varlen_attn", torch_stand_in)
    else:
        install(monkeypatch, candidate, flash_attn_with_kvcache=fa3_paged,
                flash_attn_varlen_func=fa3_flat)  # fmt: skip
    for heads in ((4, 2), (2, 2)):
        case = make([30, 7, 300], [30, 1, 5], dtype=torch.float16, heads=heads, **CASES[kind])
        rows = place(case.layout, case.k_cache, case.queries)
        out = case.poisoned_out()
        case.k_cache.nan_to_num_(0.0)
        case.v_cache.nan_to_num_(0.0)
        batch = Batch.of(case.q, case.k_cache, case.v_cache, rows, case.scale, out)
        flash.prefill(batch)
        close(out, case)


def test_flash_2_takes_pages_of_a_multiple_of_256_only(monkeypatch):
    install(monkeypatch, "flash_attn", flash_attn_varlen_func=fa2)
    assert flash.find("float16", 64, 256, "cpu")[1].ok
    attend, support = flash.find("float16", 64, 16, "cpu")
    assert attend is None
    assert "pages of a multiple of 256 tokens, not 16" in support.reason
    assert "torch: paged KV is not supported by this build" in support.reason


def test_a_kernel_that_answers_wrongly_is_refused(monkeypatch):
    def wrong(*args, **kwargs):
        return torch_stand_in(*args, **kwargs) + 0.1

    monkeypatch.setattr(varlen, "varlen_attn", wrong)
    support = flash.find("bfloat16", 64, 16, "cpu")[1]
    assert not support.ok
    assert "torch: differs from the reference by 0.1" in support.reason
    assert "flash_attn" in support.reason
