"""The same checkpoint gives the same logits here and in Hugging Face transformers."""

import json

import pytest
import torch

from harness.executors.model.decoder import shape_of_checkpoint
from tests.executors.model.decoder.cases import Prompt, build, loaded_bytes
from tests.executors.model.decoder.checkpoints import KINDS, tiny_checkpoint


def _compare(model, directory, tokens, **options):
    decoder = build(shape_of_checkpoint(directory), directory, **options)
    with torch.no_grad():
        expected = model(tokens[None]).logits[0]
    got = Prompt(decoder, len(tokens)).logits(tokens)
    assert got.dtype == torch.float32
    assert expected.std() > 0.5
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_a_prompt_equal_those_of_transformers(kind, tmp_path):
    model = tiny_checkpoint(kind, tmp_path, seed=5)
    for length in (1, 7, 45):
        tokens = torch.randint(0, 131, (length,), generator=torch.Generator().manual_seed(length))
        _compare(model, tmp_path, tokens, batch_invariant=length != 7)
    held = sum(p.nbytes for p in model.parameters())
    assert loaded_bytes(shape_of_checkpoint(tmp_path), tmp_path) == held


def test_shards_are_read_through_their_index(tmp_path):
    model = tiny_checkpoint("llama", tmp_path, seed=1, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    _compare(model, tmp_path, torch.arange(20))


def test_the_config_of_transformers_4_means_the_same(tmp_path):
    model = tiny_checkpoint("qwen2", tmp_path, seed=2)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    new = shape_of_checkpoint(tmp_path)
    assert new.rope_theta == 5000.0
    values["rope_theta"] = values.pop("rope_parameters")["rope_theta"]
    values["torch_dtype"] = values.pop("dtype")
    values["rope_scaling"] = None
    path.write_text(json.dumps(values))
    assert shape_of_checkpoint(tmp_path) == new
    _compare(model, tmp_path, torch.arange(20))


def test_half_precision_stays_near_transformers_in_half_precision(tmp_path):
    model = tiny_checkpoint("llama", tmp_path, seed=5).bfloat16()
    tokens = torch.arange(40)
    decoder = build(shape_of_checkpoint(tmp_path), tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = model(tokens[None]).logits[0].float()
    got = Prompt(decoder, 40).logits(tokens)
    assert (got - expected).abs().mean() < 0.05 * expected.std()
