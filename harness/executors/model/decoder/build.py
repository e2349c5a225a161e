"""Build a decoder for a shape, from random weights or from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from harness.cost.parameters import parameter_count
from harness.cost.shapes import ModelShape
from harness.executors.model.decoder.checkpoint import Checkpoint
from harness.executors.model.decoder.checkpoint_config import check_shape
from harness.executors.model.decoder.core import Decoder
from harness.executors.model.decoder.errors import DecoderError
from harness.executors.model.decoder.gemma3 import Gemma3Decoder
from harness.executors.model.decoder.gpt_oss import GptOssDecoder
from harness.executors.model.decoder.layers import layer_windows
from harness.executors.model.decoder.llama import LlamaDecoder
from harness.executors.model.decoder.opt import OptDecoder
from harness.executors.model.decoder.weights import Loader, RandomSource

FAMILIES: dict[str, type[Decoder]] = {
    "llama": LlamaDecoder,
    "opt": OptDecoder,
    "gemma3": Gemma3Decoder,
    "gpt_oss": GptOssDecoder,
}
#: what a family's forward pass does, whether or not a shape says so
PLAIN = {"weight_bits": 0.0, "post_norms": False, "attention_gate": False}
TRAITS = {
    "llama": {**PLAIN, "gated_ffn": True, "learned_positions": False, "linear_bias": False},
    "opt": {
        **PLAIN,
        "gated_ffn": False,
        "learned_positions": True,
        "linear_bias": True,
        "tied_embeddings": True,
        "qk_norm": False,
    },
    "gemma3": {
        **PLAIN,
        "gated_ffn": True,
        "learned_positions": False,
        "linear_bias": False,
        "qkv_bias": False,
        "tied_embeddings": True,
        "qk_norm": True,
        "post_norms": True,
    },
    "gpt_oss": {
        **PLAIN,
        "gated_ffn": True,
        "learned_positions": False,
        "linear_bias": True,
        "qkv_bias": False,
        "tied_embeddings": False,
        "qk_norm": False,
        "expert_bits": 0.0,
        "shared_ffn": 0,
        "dense_layers": 0,
    },
}
#: more random parameters than this are drawn on the GPU: a CPU draws about 1e8 in a second
DRAWN_ON_CPU = 10**9


def build_decoder(
    shape: ModelShape,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    seed: int,
    weights: Path | None,
    batch_invariant: bool,
) -> Decoder:
    """Return a decoder with its weights on `device` as `dtype`.

    With `weights` they are read from that directory's safetensors files and `seed` is not used;
    otherwise they are random.  The same seed gives the same weights on every device, except that
    a model of more than 1e9 parameters on a GPU is drawn there: then on the same kind of device.

    Raises `DecoderError`, one line, for a shape that no family here computes, for a checkpoint that
    does not fit the shape or cannot be read.
    """
    device = torch.device(device)
    check_decodable(shape)
    if weights is None:
        on_device = device.type == "cuda" and parameter_count(shape) > DRAWN_ON_CPU
        source = RandomSource(seed, device if on_device else "cpu")
        return FAMILIES[shape.family](shape, Loader(source, device, dtype), batch_invariant)
    check_shape(shape, Path(weights))
    with Checkpoint(Path(weights)) as checkpoint:
        return FAMILIES[shape.family](shape, Loader(checkpoint, device, dtype), batch_invariant)


def check_decodable(shape: ModelShape) -> None:
    """Raise `DecoderError` for a shape that no family here computes."""
    name = shape.name or "the model"
    if shape.family not in FAMILIES:
        raise DecoderError(f"{name}: family is {shape.family!r}; allowed: {', '.join(FAMILIES)}")
    if shape.experts > 1 and shape.family != "gpt_oss":
        raise DecoderError(
            f"{name}: a mixture of {shape.experts} experts has no decoder; allowed: experts=1"
        )
    layer_windows(shape)
    if shape.kv_dtype != "auto":
        raise DecoderError(
            f"{name}: kv_dtype is {shape.kv_dtype}; decoders keep the KV as they compute: auto"
        )
    for field, value in TRAITS[shape.family].items():
        if getattr(shape, field) != value:
            raise DecoderError(f"{name}: family {shape.family} needs {field}={str(value).lower()}")
    for field in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab"):
        if getattr(shape, field) < 1:
            raise DecoderError(f"{name}: {field} is {getattr(shape, field)}; allowed: at least 1")
    if shape.heads % shape.kv_heads:
        raise DecoderError(
            f"{name}: heads={shape.heads} is not a multiple of kv_heads={shape.kv_heads}"
        )
    if shape.family != "opt" and shape.head_dim % 2:
        raise DecoderError(f"{name}: head_dim={shape.head_dim}; rotary embeddings need an even one")
