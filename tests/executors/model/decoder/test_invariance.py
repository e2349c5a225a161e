"""With batch invariance, a token's row has the same bits whatever else is in the batch."""

import pytest
import torch
from torch.nn import functional

from harness.executors.model.decoder.batching import Batching
from tests.executors.model.decoder.cases import LLAMA_TINY, OPT_TINY, QWEN_TINY, DecodeStep, build

CPU = torch.device("cpu")
SHAPES = {"llama": LLAMA_TINY, "qwen": QWEN_TINY, "opt": OPT_TINY}


@pytest.fixture(autouse=True)
def _threads():
    """Let a test change the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 512), (688, 256), (256, 1024), (96, 288)])
def test_a_row_of_a_linear_layer_has_the_same_bits_in_every_batch(dtype, inputs, outputs):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((outputs, inputs), generator=generator).to(dtype)
    x = torch.randn((100, inputs), generator=generator).to(dtype)
    batching = Batching(CPU, True)
    for bias in (None, torch.randn(outputs, generator=generator).to(dtype)):
        every = batching.linear(batching.pad(x), weight, bias)[:100]
        for count in range(1, 101):
            rows = torch.randperm(100, generator=generator)[:count]
            some = batching.linear(batching.pad(x[rows]), weight, bias)[:count]
            assert torch.equal(some, every[rows]), count


@pytest.mark.parametrize("name", SHAPES)
def test_a_decode_step_gives_each_sequence_the_same_bits_in_every_batch(name):
    decoder = build(SHAPES[name])
    step = DecodeStep(decoder, 100, "reference")
    every = step.hidden(torch.arange(100))
    logits = decoder.logits(every)
    generator = torch.Generator().manual_seed(1)
    for count in (*range(1, 20), 31, 32, 33, 48, 64, 79, 100):
        rows = torch.randperm(100, generator=generator)[:count]
        hidden = step.hidden(rows)
        assert torch.equal(hidden, every[rows]), count
        assert torch.equal(decoder.logits(hidden), logits[rows]), count


@pytest.mark.parametrize("name", SHAPES)
def test_all_but_attention_has_the_same_bits_for_every_batch_size(name):
    decoder = build(SHAPES[name])
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, decoder.shape.vocab, (100,), generator=generator)
    positions = torch.randint(0, 500, (100,), generator=generator)

    def attend(layer, q, k, v):
        return q + k.mean(dim=1, keepdim=True) + v[:, :1]

    every = decoder.hidden(tokens, positions, attend)
    for count in range(1, 101):
        rows = torch.randperm(100, generator=generator)[:count]
        some = decoder.hidden(tokens[rows], positions[rows], attend)
        assert torch.equal(some, every[rows]), count


@pytest.mark.parametrize("threads", [1, 3, 4])
def test_bits_do_not_depend_on_how_threads_split_the_batch(threads):
    torch.set_num_threads(threads)
    decoder = build(LLAMA_TINY)
    tokens, positions = torch.arange(400), torch.arange(400)
    every = decoder.hidden(tokens, positions, lambda layer, q, k, v: q)
    for first, last in ((0, 1), (37, 49), (37, 150), (150, 261), (3, 399)):
        some = decoder.hidden(tokens[first:last], positions[first:last], lambda layer, q, k, v: q)
        assert torch.equal(some, every[first:last])


def test_attention_never_sees_padding():
    decoder, seen = build(OPT_TINY), []

    def attend(layer, q, k, v):
        seen.append((layer, q.shape, k.shape, v.shape))
        return q

    decoder.hidden(torch.arange(5), torch.arange(5), attend)
    assert seen == [(layer, (5, 3, 32), (5, 3, 32), (5, 3, 32)) for layer in range(2)]


def test_pieces_of_an_elementwise_function_are_the_function():
    x = torch.randn(3, 50001, generator=torch.Generator().manual_seed(0))
    silu = Batching(CPU, True).steady(lambda t: functional.silu(t, inplace=True), x.clone())
    torch.testing.assert_close(silu, functional.silu(x))


def test_without_invariance_there_is_no_padding():
    batching = Batching(CPU, False)
    x = torch.zeros(5, 4)
    assert batching.pad(x) is x
    assert Batching(CPU, True).pad(x).shape == (16, 4)
    assert Batching(torch.device("cuda"), True).rows(65) == 128


def test_tile_by_tile_products_equal_one_product():
    batching = Batching(CPU, True)
    batching.by_tile = True  # as on a GPU
    x, weight, bias = torch.randn(64, 32), torch.randn(48, 32), torch.randn(48)
    for one in (None, bias):
        expected = functional.linear(x, weight, one)
        torch.testing.assert_close(batching.linear(x, weight, one), expected)
