"""Checkpoints whose weights cannot be read are one line that names the file."""

import json

import pytest
import torch
from safetensors.torch import save_file

from harness.executors.model.decoder import shape_of_checkpoint
from tests.executors.model.decoder.cases import loaded_bytes
from tests.executors.model.decoder.spoilt import TENSORS, config, error, weights


def test_this_checkpoint_is_good_before_it_is_spoilt(tmp_path):
    config(tmp_path)
    weights(tmp_path)
    shape = shape_of_checkpoint(tmp_path)
    numbers = sum(torch.Size(size).numel() for size in TENSORS.values())
    assert loaded_bytes(shape, tmp_path) == 4 * numbers
    assert shape.name == tmp_path.name
    assert shape.rope_theta == 10000.0  # what checkpoints older than the option mean


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_never_opened(name, tmp_path):
    config(tmp_path)
    (tmp_path / name).write_bytes(b"not even a pickle")
    text = error(tmp_path, "convert them to model.safetensors")
    assert name in text


def test_a_missing_tensor_is_named(tmp_path):
    config(tmp_path)
    weights(tmp_path, **{"model.layers.0.mlp.up_proj.weight": None})
    error(tmp_path, r"no tensor model.layers.0.mlp.up_proj.weight, of shape \[24, 16\]")


def test_an_untied_model_needs_its_head(tmp_path):
    config(tmp_path, tie_word_embeddings=False)
    weights(tmp_path)
    error(tmp_path, "no tensor lm_head.weight")


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path):
    config(tmp_path)
    weights(tmp_path, **{"model.layers.0.self_attn.k_proj.weight": (16, 16)})
    text = error(tmp_path, r"has shape \[16, 16\]; the model needs \[8, 16\]")
    assert "model.safetensors" in text


def test_integer_weights_are_refused(tmp_path):
    config(tmp_path)
    tensors = {key: torch.ones(shape, dtype=torch.int8) for key, shape in TENSORS.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    error(tmp_path, "allowed: float32, float16, bfloat16")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x10\0\0\0\0\0\0\0{not json at all"])
def test_a_damaged_file_is_named(content, tmp_path):
    config(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    error(tmp_path, "model.safetensors: not a readable safetensors file")


def test_no_weights_and_no_directory(tmp_path):
    config(tmp_path)
    error(tmp_path, "holds neither model.safetensors nor model.safetensors.index.json")
    error(tmp_path, "config.json: no such file", lambda: shape_of_checkpoint(tmp_path / "no"))


@pytest.mark.parametrize("name", ["../model.safetensors", "gone.safetensors", 3])
def test_an_index_names_files_beside_it(name, tmp_path):
    directory = tmp_path / "inner"
    directory.mkdir()
    config(directory)
    weights(tmp_path)
    index = {"weight_map": dict.fromkeys(TENSORS, name)}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    error(directory, "no file in the same directory|not an index")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_is_none(text, tmp_path):
    config(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    error(tmp_path, "not an index")
