"""Random weights: the same for the same seed, of the declared size and spread."""

import pytest
import torch

from harness.cost.parameters import weight_bytes
from harness.cost.shapes import ModelShape
from harness.executors.model.decoder import DecoderError
from harness.executors.model.decoder.weights import Kind, RandomSource
from tests.executors.model.decoder.cases import (
    LLAMA_TINY,
    OPT_TINY,
    QWEN_TINY,
    Prompt,
    build,
    loaded_bytes,
)

UNTIED = ModelShape(**{**vars(LLAMA_TINY), "name": "untied", "tied_embeddings": False})


@pytest.mark.parametrize("shape", [LLAMA_TINY, UNTIED, QWEN_TINY, OPT_TINY], ids=lambda s: s.name)
def test_logits_are_seeded_and_spread_by_about_two(shape):
    tokens = torch.arange(30)
    logits = [Prompt(build(shape, seed=seed), 30).logits(tokens) for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    assert 1.5 < logits[0].std() < 2.6
    assert len(set(logits[0].argmax(-1).tolist())) > 10


@pytest.mark.parametrize("shape", [LLAMA_TINY, UNTIED, QWEN_TINY, OPT_TINY], ids=lambda s: s.name)
def test_the_cost_model_counts_the_bytes_that_are_there(shape):
    assert loaded_bytes(shape, dtype=torch.bfloat16) == weight_bytes(shape)


def test_a_tensor_does_not_depend_on_what_was_drawn_before():
    source = RandomSource(7)
    first = source("a", (4, 8), Kind.LINEAR)
    source("b", (4, 8), Kind.LINEAR)
    assert torch.equal(source("a", (4, 8), Kind.LINEAR), first)
    assert not torch.equal(source("b", (4, 8), Kind.LINEAR), first)
    assert torch.equal(source("n", (4,), Kind.NORM), torch.ones(4))


def test_invariant_and_plain_decoders_agree():
    tokens = torch.arange(21)
    plain = Prompt(build(QWEN_TINY, batch_invariant=False), 21).logits(tokens)
    torch.testing.assert_close(
        Prompt(build(QWEN_TINY), 21).logits(tokens), plain, rtol=1e-4, atol=1e-4
    )


def test_an_empty_batch_and_its_attributes():
    decoder = build(LLAMA_TINY)
    none = torch.zeros(0, dtype=torch.int64)
    hidden = decoder.hidden(none, none, lambda *_: pytest.fail("called"))
    assert hidden.shape == (0, 256)
    assert decoder.logits(hidden).shape == (0, 1024)
    assert (decoder.scale, decoder.dtype, decoder.device.type) == (0.125, torch.float32, "cpu")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"experts": 8, "active_experts": 2}, "experts=1"),
        ({"family": "gpt"}, "allowed: llama, opt"),
        ({"linear_bias": True}, "needs linear_bias=false"),
        ({"kv_heads": 3}, "not a multiple"),
        ({"head_dim": 33}, "even"),
        ({"layers": 0}, "layers is 0"),
    ],
)
def test_a_shape_that_nothing_computes_is_one_line(change, text):
    with pytest.raises(DecoderError, match=text) as caught:
        build(ModelShape(**{**vars(LLAMA_TINY), **change}))
    assert "\n" not in str(caught.value)
