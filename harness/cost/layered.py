"""Attention's constants of each layer group: the roofline's formula with other numbers in it.

A layer group is priced by `flat.decode_s` and `flat.prefill_s` like a uniform model's attention,
over what its tokens read (`harness.cost.reads`):

    full, sliding, chunked   bytes of keys and values; 2 FLOP a pair and dimension of key and value
    latent                   decoding reads the latent once for all heads, each of which multiplies
                             with all of it (DeepSeek-V2, arXiv 2405.04434, section 2.1.2: W^UK and
                             W^UV are absorbed); a prompt's keys and values are made of its latents,
                             those of tokens before the piece again
    state                    decoding reads and writes the whole state; a prompt is scanned
    cross                    the encoder's keys and values, made with the first piece of a prompt

All are of one rank, seconds and bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from allocators.layers import IntArray, LayerGroup
from harness.cost import flat
from harness.cost.curves import FloatArray
from harness.cost.flat import FlatPrices
from harness.cost.kv import layer_groups, settled_layers, slot_bytes, split
from harness.cost.layers import LayerSpec
from harness.cost.parameters import key_value_parameters, latent_up_parameters
from harness.cost.reads import prefill_reads
from harness.cost.shapes import HardwareSpec, ModelShape
from harness.cost.spec import CostSpec

#: tokens that a scan multiplies as one matrix: the defaults of Mamba-2's kernels (mamba_ssm) and of
#: Gated DeltaNet's (flash-linear-attention)
SCAN_TOKENS = {"mamba2": 256, "gated_delta": 64}
#: Mamba's scan multiplies no matrices: FLOPs of a token, channel and number of its state (as
#: mamba_ssm counts them), and how much faster tensor cores are than the rest (A100: 312 and 19.5)
MAMBA_FLOPS, TENSOR_CORES = 9, 16


class LayerPrices(NamedTuple):
    """One layer group and its attention's constants.

    past_token_s: of a piece of a prompt, for each token before it.  first_piece_s: of a prompt.
    """

    group: LayerGroup
    prices: FlatPrices
    past_token_s: float = 0.0
    first_piece_s: float = 0.0


def layer_prices(
    model: ModelShape, hardware: HardwareSpec, cost: CostSpec, plain: FlatPrices
) -> tuple[LayerPrices, ...]:
    """Return what differs from `plain` in each layer group; nothing of a uniform model."""
    groups = layer_groups(model, hardware.count)
    made = _Maker(model, hardware, cost, plain)
    return tuple(
        made.of(group, layer) for group, layer in zip(groups, settled_layers(model), strict=False)
    )


def decode_s(layers: tuple[LayerPrices, ...], seqs: int, reads: IntArray) -> float | FloatArray:
    """Return the seconds of attention of `seqs` new tokens in all layer groups.

    `reads` are those of `decode_reads`, [layer groups] of one step or [layer groups, steps].
    """
    slots = reads.astype(np.float64)
    seconds = 0.0
    for layer, read in zip(layers, slots, strict=True):
        seconds = seconds + flat.decode_s(layer.prices, seqs, read)
    return seconds


def prefill_s(layers: tuple[LayerPrices, ...], new: IntArray, past: IntArray) -> float:
    """Return the seconds of attention of pieces of prompts in all layer groups."""
    before, firsts = int(past.sum()), int(np.count_nonzero((past == 0) & (new > 0)))
    seconds = 0.0
    for layer in layers:
        seconds += flat.prefill_s(layer.prices, *prefill_reads(layer.group, new, past))
        seconds += before * layer.past_token_s + firsts * layer.first_piece_s
    return seconds


class _Maker:
    def __init__(
        self, model: ModelShape, hardware: HardwareSpec, cost: CostSpec, plain: FlatPrices
    ) -> None:
        self._model, self._hardware, self._cost, self._plain = model, hardware, cost, plain
        self._ranks = hardware.count
        byte_s = hardware.bandwidth_gb_s * 1e9
        self._decode_byte_s = 1 / (byte_s * hardware.decode_bandwidth_efficiency)
        self._prefill_byte_s = 1 / (byte_s * cost.prefill_bandwidth_efficiency)
        self._flops = hardware.tflops * 1e12 * cost.prefill_efficiency  # a second

    def of(self, group: LayerGroup, layer: LayerSpec) -> LayerPrices:
        if group.kind == "state":
            return self._state(group, layer)
        if group.kind == "latent":
            return self._latent(group, layer)
        wide = self._heads(layer) * (layer.head_dim + layer.v_head_dim)
        kept = slot_bytes(self._model, layer, self._ranks) // self._ranks
        prices = self._priced(
            layer,
            decode_bytes=kept,
            seq_bytes=wide * self._model.dtype_bytes,
            prefill_bytes=kept,
            pair_flops=2 * wide,
        )
        first_piece_s = 0.0
        if group.kind == "cross":
            made = key_value_parameters(self._model, layer) / self._ranks * layer.layers
            first_piece_s = group.encoder_tokens * 2 * made * self._plain.gemm_s
        return LayerPrices(group, prices, first_piece_s=first_piece_s)

    def _latent(self, group: LayerGroup, layer: LayerSpec) -> LayerPrices:
        heads, width = self._heads(layer), self._model.dtype_bytes
        absorbed = heads * (layer.latent_dim + layer.kv_lora_rank)
        wide = heads * (layer.head_dim + layer.v_head_dim)
        prices = self._priced(
            layer,
            decode_bytes=slot_bytes(self._model, layer),
            seq_bytes=absorbed * width,
            prefill_bytes=wide * width,
            pair_flops=2 * wide,
        )
        # All heads multiply with what is read once, which on fast memory takes longer.
        compute_s = layer.layers * 2 * absorbed / self._flops
        prices = prices._replace(decode_context_s=max(prices.decode_context_s, compute_s))
        up = layer.layers * latent_up_parameters(layer) / self._ranks
        return LayerPrices(group, prices, past_token_s=2 * up * self._plain.gemm_s)

    def _state(self, group: LayerGroup, layer: LayerSpec) -> LayerPrices:
        model, ranks = self._model, self._ranks
        kept = slot_bytes(model, layer, ranks) // ranks
        moved = (layer.conv_channels + 2 * layer.inner) / ranks * model.dtype_bytes
        prices = self._priced(
            layer,
            decode_bytes=2 * kept,
            seq_bytes=moved,
            prefill_bytes=kept,
            pair_flops=_scan_flops(model, layer) / ranks,
        )
        return LayerPrices(group, prices._replace(prefill_tile_tokens=0.0))

    def _heads(self, layer: LayerSpec) -> int:
        return max(1, split(layer.heads, self._ranks))

    def _priced(
        self,
        layer: LayerSpec,
        *,
        decode_bytes: float,
        seq_bytes: float,
        prefill_bytes: float,
        pair_flops: float,
    ) -> FlatPrices:
        """Return `plain` with the constants of these layers; bytes and FLOPs are those of one."""
        layers = layer.layers
        return self._plain._replace(
            decode_floor_s=float(layers * self._hardware.decode_floor_us * 1e-6),
            decode_seq_s=float(layers * seq_bytes * self._decode_byte_s),
            decode_context_s=float(layers * decode_bytes * self._decode_byte_s),
            prefill_floor_s=float(layers * self._cost.prefill_floor_us * 1e-6),
            prefill_pair_s=layers * pair_flops / self._flops,
            prefill_kv_s=layers * prefill_bytes * self._prefill_byte_s,
            prefill_query_s=layers * seq_bytes * self._prefill_byte_s,
        )


def _scan_flops(model: ModelShape, layer: LayerSpec) -> float:
    """Return the FLOPs with which one layer scans a token of a prompt.

    Mamba goes from token to token.  The others multiply tokens of a chunk with each other, which
    write into the state and read of it by chunk: Mamba-2, arXiv 2405.21060, section 6.
    """
    if not layer.mixer:
        return 4 * layer.state_bytes / model.dtype_bytes
    kept = layer.inner * layer.state_dim
    if layer.mixer == "mamba":
        return MAMBA_FLOPS * kept * TENSOR_CORES
    chunk = SCAN_TOKENS[layer.mixer]
    return 2 * chunk * (layer.state_heads * layer.state_dim + layer.inner) + 4 * kept
