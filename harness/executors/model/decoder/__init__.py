"""A real decoder: the forward pass of a Llama or OPT model, without any KV memory of its own.

What a layer's queries read is the caller's business: `Decoder.hidden` hands each layer's queries,
keys and values to an `Attend`, which stores them wherever an allocator said and returns what
attention makes of them.  So the same decoder runs on contiguous, paged and virtual memory.

Weights are seeded random numbers or a local directory of safetensors files in Hugging Face's
layout.  Nothing is ever downloaded or unpickled.
"""

from __future__ import annotations

from harness.executors.model.decoder.build import build_decoder, check_decodable
from harness.executors.model.decoder.checkpoint_config import shape_of_checkpoint
from harness.executors.model.decoder.core import Attend, Decoder
from harness.executors.model.decoder.errors import DecoderError

__all__ = [
    "Attend",
    "Decoder",
    "DecoderError",
    "build_decoder",
    "check_decodable",
    "shape_of_checkpoint",
]
