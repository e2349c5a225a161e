"""Published config.json files, against the files in conf/model written by hand."""

import json
from dataclasses import replace

import pytest

from harness.comparison import compose, prepare
from harness.cost import LayerSpec, ModelShape, weight_bytes
from harness.cost.hf.read import read_shape
from harness.cost.kv import layer_groups
from harness.errors import ConfigError
from harness.size.__main__ import main
from tests.cost.hf.published import PUBLISHED
from tests.places import shipped


def write(folder, values, name="config.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))
    return folder / name


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_is_the_model_of_conf(name, tmp_path):
    path = write(tmp_path / name, PUBLISHED[name])
    read, ours = read_shape(path), shipped(ModelShape, "model", name)
    assert read.name == name
    if name == "jamba-1.5-mini":
        assert not ours.learned_positions  # and no rotary embedding: its base means nothing
    assert replace(read, name=ours.name, path=None) == ours


def test_mistral_7b_has_a_window_that_its_file_in_conf_leaves_out(tmp_path):
    values = PUBLISHED["llama-3-8b"] | {
        "model_type": "mistral", "vocab_size": 32000, "max_position_embeddings": 32768,
        "sliding_window": 4096, "rope_theta": 10000.0,
    }  # fmt: skip
    read = read_shape(write(tmp_path / "mistral-7b", values))
    assert read.layer_groups == [LayerSpec("sliding", 32, 4096)]
    ours = shipped(ModelShape, "model", "mistral-7b")
    assert replace(read, name=ours.name, path=None, layer_groups=[]) == ours
    # Version 0.2 has none, and one as long as the context is none.
    for window in (None, 32768):
        path = write(tmp_path / "v0.2", values | {"sliding_window": window})
        assert read_shape(path).layer_groups == []


def test_keys_of_other_published_files(tmp_path):
    llama, coder = PUBLISHED["llama-3-8b"], PUBLISHED["qwen3-30b-a3b"]
    phi_4_mini = {"model_type": "phi3", "full_attn_mod": 1, "interpolate_factor": 1,
                  "lm_head_bias": False, "mlp_bias": False}  # fmt: skip
    read = read_shape(write(tmp_path, llama | phi_4_mini))
    assert read == read_shape(write(tmp_path, llama))
    more = {"qkv_bias": False, "use_qk_norm": True, "shared_expert_intermediate_size": 0}
    assert read_shape(write(tmp_path, coder | more)) == read_shape(write(tmp_path, coder))
    assert read_shape(write(tmp_path, PUBLISHED["qwen2.5-7b"] | {"use_mrope": False})).qkv_bias


def test_layers_that_a_file_says_there_are_none_of(tmp_path):
    scout, vision = (json.loads(json.dumps(PUBLISHED[name]))
                     for name in ("llama-4-scout", "llama-3.2-11b-vision"))  # fmt: skip
    scout["text_config"]["moe_layers"] = []
    assert read_shape(write(tmp_path / "scout", scout)).dense_layers == 48
    vision["text_config"]["cross_attention_layers"] = []
    assert read_shape(write(tmp_path / "vision", vision)).layer_groups == []
    sparse = {"expert_layer_period": 4}  # in layers 1, 5, ..
    path = write(tmp_path / "jamba", PUBLISHED["jamba-1.5-mini"] | sparse)
    assert read_shape(path).dense_layers == 24
    uses = {"use_sliding_window": True}  # from layer 28 on, of 28
    path = write(tmp_path / "qwen", PUBLISHED["qwen2.5-7b"] | uses)
    assert read_shape(path).layer_groups == []


def test_weights_in_fp8_but_for_small_ones(tmp_path):
    small = ["lm_head", "model.layers.0.mlp.gate", "model.norm", "mtp.layers.0.mlp.up_proj"]
    how = {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": small}
    path = write(tmp_path, PUBLISHED["qwen3-30b-a3b"] | {"quantization_config": how})
    assert read_shape(path).weight_bits == 8 + 32 / 128**2


def test_a_directory_or_a_file_of_any_name(tmp_path):
    write(tmp_path / "Llama-X", PUBLISHED["llama-3-8b"])
    assert read_shape(tmp_path / "Llama-X").name == "Llama-X"
    other = write(tmp_path, PUBLISHED["llama-3-8b"], "mine.json")
    assert read_shape(other).name == "mine"


# -- as a model of a run -------------------------------------------------------------------------
def run(path, *options):
    small = ("+workload=uniform", "workload.num_requests=2", "kv_tokens=9000", "allocator=[paged]")
    return prepare(compose(*small, "model=hf", f"model.path={path}", *options))


def test_a_run_of_a_file_is_that_of_the_model(tmp_path):
    path = write(tmp_path / "gpt-oss-20b", PUBLISHED["gpt-oss-20b"])
    prepared = run(path, "kv_dtype=fp8")
    ours = shipped(ModelShape, "model", "gpt-oss-20b")
    assert prepared.geometry.layer_groups == layer_groups(replace(ours, kv_dtype="fp8"))
    # The record of a run does not need the file any more.
    assert prepared.saved["model"]["layers"] == 24
    assert prepared.saved["model"]["layer_groups"][0]["window"] == 128


def test_what_is_set_besides_counts_before_the_file(tmp_path):
    path = write(tmp_path / "m", PUBLISHED["llama-3-8b"])
    model = run(
        path, "model.name=mine", "model.max_context=4096", "model.dtype_bytes=1"
    ).config.model
    assert (model.name, model.max_context, model.dtype_bytes) == ("mine", 4096, 1)
    assert (model.layers, model.vocab) == (32, 128256)


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"model\.path: model=hf needs model\.path=FILE"):
        prepare(compose("+workload=uniform", "model=hf"))
    with pytest.raises(ConfigError, match=r"model\.path: .*none\.json: no such file"):
        run(tmp_path / "none.json")
    assert main(["model=hf", f"model.path={tmp_path}/none.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_beside_a_model_that_says_all_is_refused(tmp_path):
    path = write(tmp_path, PUBLISHED["gpt-oss-20b"])
    with pytest.raises(ConfigError, match=r"\.json would change nothing of Llama-3-8B"):
        run(path, "model=llama-3-8b")


def test_the_size_of_a_file(tmp_path, capsys):
    path = write(tmp_path / "gpt-oss-20b", PUBLISHED["gpt-oss-20b"])
    assert main(["model=hf", f"model.path={path}", "hardware=h100-80gb", "--format=json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"]["name"] == "gpt-oss-20b"
    ours = shipped(ModelShape, "model", "gpt-oss-20b")
    assert record["budgets"][0]["weight_bytes"] == weight_bytes(ours)
