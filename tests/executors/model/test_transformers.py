"""The same weights give the same tokens as Hugging Face transformers, greedy and with beams."""

import os

import numpy as np
import pytest
import torch

from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.config import SamplingSpec
from harness.executors.model.decoder import build_decoder, shape_of_checkpoint
from tests.executors.model.serving_cases import geometry, serve
from workloads.requests import RequestTable

os.environ["HF_HUB_OFFLINE"] = "1"
pytest.importorskip("transformers", reason="transformers is a test dependency")
from tests.executors.model.decoder.checkpoints import tiny_checkpoint

PROMPTS, OUTPUT = (5, 1, 23, 16), 20
ALLOCATORS = {
    "contiguous": lambda pool: Contiguous(pool, reservation="grow"),
    "paged": lambda pool: Paged(pool, block_size=4, prefix_index="hash"),
    "virtual": lambda pool: Virtual(pool, page_size="64KiB"),
}


@pytest.fixture(scope="module", params=["llama", "opt"])
def pair(request, tmp_path_factory):
    """A model of transformers, and ours with the weights it wrote."""
    directory = tmp_path_factory.mktemp(request.param)
    theirs = tiny_checkpoint(request.param, directory, seed=3)
    shape = shape_of_checkpoint(directory)
    ours = build_decoder(
        shape, device="cpu", dtype=torch.float32, seed=0, weights=directory, batch_invariant=True
    )
    return theirs.eval(), ours


def table(vocab):
    rng = np.random.default_rng(11)
    return RequestTable(
        arrival_s=np.zeros(len(PROMPTS)),
        prompt_tokens=np.array(PROMPTS),
        output_tokens=np.full(len(PROMPTS), OUTPUT),
        token_ids=[rng.integers(0, vocab, n) for n in PROMPTS],
    )


def generate(model, prompt, **options):
    found = model.generate(
        torch.as_tensor(prompt)[None],
        max_new_tokens=OUTPUT,
        min_new_tokens=OUTPUT,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    return found.sequences[:, len(prompt) :].numpy(), getattr(found, "sequences_scores", None)


@pytest.mark.parametrize("mode", ["greedy", "beam"])
@pytest.mark.parametrize("name", ALLOCATORS)
def test_tokens_are_those_of_transformers(pair, name, mode):
    theirs, ours = pair
    requests = table(ours.shape.vocab)
    pool = geometry(ours.shape, tokens=1200)
    sampling = SamplingSpec(mode, width=4)
    seen = serve(ALLOCATORS[name](pool), requests, sampling=sampling, decoder=ours)
    options = {"num_beams": 4, "num_return_sequences": 4} if mode == "beam" else {}
    for i, prompt in enumerate(requests.token_ids):
        tokens, scores = generate(theirs, prompt, **options)
        assert seen.outputs[i].tolist() == tokens.tolist()
        if mode == "beam":
            # theirs are divided by the length of what was generated
            assert np.allclose(np.array(seen.scores[i]) / OUTPUT, scores.numpy(), atol=1e-4)
            assert len({tuple(row) for row in tokens.tolist()}) == 4
