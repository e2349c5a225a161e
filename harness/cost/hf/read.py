"""The shape that a Hugging Face config.json describes: `model=hf model.path=config.json`.

Only the language model of a model that sees is read.  A key that is not known here is refused by
its name, and so is a value that would change layers or weights in a way that is not followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

from harness.cost.hf import dense, mixed
from harness.cost.hf.ignored import IGNORED, VISION
from harness.cost.hf.values import Values
from harness.cost.shapes import CostError, ModelShape

CONFIG = "config.json"
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
#: `model_type` of models that see: that of their language model, in `text_config`
SEEING = {"gemma3": "gemma3_text", "llama4": "llama4_text", "mllama": "mllama_text_model"}
#: by `model_type`
READERS: dict[str, Callable[[Values], ModelShape]] = {
    "llama": dense.llama,
    "mistral": dense.mistral,
    "ministral": dense.ministral,
    "mixtral": mixed.mixtral,
    "phi3": dense.phi3,
    "qwen2": dense.qwen2,
    "qwen3": dense.qwen3,
    "qwen3_moe": mixed.qwen3_moe,
    "opt": dense.opt,
    "gemma2": dense.gemma2,
    "gemma3_text": dense.gemma3,
    "gpt_oss": mixed.gpt_oss,
    "llama4_text": mixed.llama4,
    "deepseek_v2": mixed.deepseek,
    "deepseek_v3": mixed.deepseek,
    "jamba": mixed.jamba,
    "qwen3_next": mixed.qwen3_next,
    "mllama_text_model": mixed.mllama,
}
#: MXFP4 (OCP Microscaling Formats, version 1.0): 4 bits, and a scale of 8 for each 32 weights
MXFP4_BITS = 4 + 8 / 32
#: modules whose weights hardly count, or are counted as the model computes: quantised or not
SMALL = re.compile(
    r"^mtp\.|(^|\.)(lm_head|embed_tokens|\w*norm|gate|shared_expert_gate|conv1d|in_proj_ba)$"
)
#: what the library once wrote of every model, and must be so of all that are read here
PLAIN: dict[str, object] = {
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
}
#: `conf/model/hf.yaml`: whatever else is set there is the user's, and counts before the file's
AS_FILE = ModelShape(name="hf", dtype_bytes=0)
#: where all of these are set besides, as every other model's are, there is nothing to read
SIZES = {"layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "max_context"}


def resolved(model: ModelShape) -> ModelShape:
    """Return the shape of `model.path`, with what else is set in `model` in place of the file's.

    Raises `CostError`, one line, for a file that cannot be read or followed.
    """
    if not model.path:
        raise CostError("model=hf needs model.path=FILE, a config.json of Hugging Face")
    given = {
        field.name: getattr(model, field.name)
        for field in fields(ModelShape)
        if getattr(model, field.name) != getattr(AS_FILE, field.name)
    }
    if given.keys() >= SIZES:
        raise CostError(
            f"{model.path} would change nothing of {model.name}, whose sizes are all set: model=hf "
            "takes them from it"
        )
    return replace(read_shape(Path(model.path).expanduser(), model.dtype_bytes), **given)


def read_shape(path: Path, dtype_bytes: int = 0) -> ModelShape:
    """Return the shape that a config.json, or that of a directory, describes.

    It is named after its directory, or after the file if that has a name of its own.
    `dtype_bytes` are those of a number where the file does not say its type.
    Raises `CostError`.
    """
    path = path / CONFIG if path.is_dir() else path
    values = Values(path)
    kind, inner = values.name("model_type", {*READERS, *SEEING}), values
    if kind in SEEING:
        inner = values.inner("text_config")
        inner.only("model_type", SEEING[kind], SEEING[kind])
    for key, value in PLAIN.items():
        inner.only(key, value, value)
        values.only(key, value, value)
    shape = READERS[SEEING.get(kind, kind)](inner)
    if kind == "mllama":
        shape.layer_groups = mixed.vision_layers(inner, values.inner("vision_config"), shape.layers)
    _stored(values, inner, shape, dtype_bytes)
    if inner is not values:
        inner.refuse_others(kind, IGNORED)
        tied = shape.tied_embeddings  # the language model's own
        values.only("tie_word_embeddings", tied, tied)
        values.refuse_others(kind, IGNORED | VISION)
    else:
        values.refuse_others(kind, IGNORED)
    shape.name = path.resolve().parent.name if path.name == CONFIG else path.stem
    shape.path = str(path)
    return shape


def _stored(values: Values, inner: Values, shape: ModelShape, dtype_bytes: int) -> None:
    """Fill in how numbers are stored: the type, and the bits of quantised weights."""
    for key in ("dtype", "torch_dtype"):
        for place in (inner, values):
            if place.get(key) is not None:
                found = DTYPE_BYTES[place.name(key, DTYPE_BYTES)]
                dtype_bytes = dtype_bytes or found
    if not dtype_bytes:
        raise values.wrong("torch_dtype", f"{', '.join(DTYPE_BYTES)}, or model.dtype_bytes=2")
    shape.dtype_bytes = dtype_bytes
    if values.get("quantization_config") is None:
        return
    how = values.inner("quantization_config")
    method = how.get("quant_method")
    if method == "mxfp4" and shape.experts > 1:  # the experts alone
        shape.expert_bits = MXFP4_BITS
    elif method == "fp8":
        how.only("fmt", "e4m3", "e4m3")
        plain = how.get("modules_to_not_convert", [])
        if not isinstance(plain, list) or not all(SMALL.search(str(name)) for name in plain):
            raise how.wrong("modules_to_not_convert", "norms, routers, lm_head and the like")
        block = how.sizes("weight_block_size", least=1)  # of weights that share a scale of fp32
        shape.weight_bits = 8 + (32 / math.prod(block) if block else 0)
    else:
        raise how.wrong("quant_method", "fp8, or mxfp4 of a mixture; others are not known")
    how.refuse_others(str(method), {"activation_scheme", "modules_to_not_convert", "scale_fmt"})
