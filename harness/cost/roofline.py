"""The roofline cost model: how long a serving step takes on given hardware.

A step runs every layer once over all its tokens.  Its time is the sum of parts that do not overlap:

    linear      every weight is read once; each token costs 2 FLOP a weight
    elementwise norms, residual adds, rotary, activation: bandwidth, or a floor
    prefill     attention of prompt pieces: compute-bound, quadratic
    decode      attention of one new token a sequence: reads the whole KV, bound by bandwidth
    all_reduce  two a layer under tensor parallelism
    tables      block tables written by the host and sent to the device
    software    scheduling, launching, sampling: `harness.cost.software`

The formula itself stands in `harness.cost.flat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from allocators.base import BLOCK_TABLE_ENTRY_BYTES, Allocator, Grant, IntArray
from harness.cost import flat, layered
from harness.cost.curves import FloatArray
from harness.cost.flat import NOTHING, FlatPrices, Priced
from harness.cost.grants import GrantPrices, PricedGrant
from harness.cost.kv import kv_bytes_per_token, settled_layers
from harness.cost.layered import LayerPrices, layer_prices
from harness.cost.limits import check_cost, check_hardware
from harness.cost.model import CostModel
from harness.cost.parameters import expert_layers, expert_parameters, passed_parameters
from harness.cost.reads import causal_reads
from harness.cost.shapes import HardwareSpec, ModelShape
from harness.cost.software import Software, SoftwareSpec
from harness.cost.spec import MEASURED_BLOCK_TOKENS, CostSpec

#: small kernels a layer: two norms, two residual adds, rotary, activation
ELEMENTWISE_KERNELS = 6


def block_slowdown(per_block: float, block_tokens: int) -> float:
    """Return how much longer a kernel takes with blocks of `block_tokens`; 0 for no block tables.

    Each block costs as much as `per_block` tokens more would.  The constants of attention are those
    of kernels with `MEASURED_BLOCK_TOKENS` a block, and larger blocks are no faster.
    """
    if not block_tokens:
        return 1.0
    return 1 + per_block * max(0.0, 1 / block_tokens - 1 / MEASURED_BLOCK_TOKENS)


def _no_pieces() -> IntArray:
    return np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class Work:
    """What one step computes.

    `prefill_new` [m] are the tokens computed of each prompt piece, `prefill_past` [m] those whose
    KV is already there; `decode_context_tokens` is the sum over decoding sequences of the KV they
    read, the new token included, with layer groups one for each (`reads.decode_reads`); `sampled`
    counts the sequences that produce a token, and `table_bytes` the block tables sent to the
    device.  `block_tokens` are the tokens of a block, 0 where kernels read no block tables.
    """

    prefill_new: IntArray = field(default_factory=_no_pieces)
    prefill_past: IntArray = field(default_factory=_no_pieces)
    decode_seqs: int = 0
    decode_context_tokens: int | IntArray = 0
    sampled: int = 0
    table_bytes: int = 0
    block_tokens: int = 0


class Roofline(CostModel):
    """Prices steps and grants; all times in seconds, all bytes per rank unless said otherwise."""

    def __init__(
        self,
        model: ModelShape,
        hardware: HardwareSpec,
        cost: CostSpec,
        software: SoftwareSpec | None = None,
    ) -> None:
        """`software` is the default profile where it is None.

        Raise `CostError` when a constant makes no sense.
        """
        check_hardware(hardware)
        check_cost(cost)
        self.software = Software(software or SoftwareSpec(), hardware.count)
        stack = self.software.spec
        self.model, self.hardware, self.cost = model, hardware, cost
        self.ranks = ranks = hardware.count
        self.flop_s = hardware.tflops * 1e12
        self.byte_s = hardware.bandwidth_gb_s * 1e9
        width = model.dtype_bytes

        layers, heads = model.layers, max(1, -(-model.heads // ranks)) * model.head_dim
        always = passed_parameters(model) / ranks  # weights every token passes
        expert = expert_layers(model) * expert_parameters(model) / ranks  # of one, all layers
        head = model.vocab * model.hidden / ranks
        bits = model.weight_bits or 8.0 * width
        weight_s = bits / 8 / (self.byte_s * cost.weight_bandwidth_efficiency)
        elementwise_byte_s = self.byte_s * cost.elementwise_bandwidth_efficiency
        elementwise_floor_s = layers * ELEMENTWISE_KERNELS * cost.elementwise_floor_us * 1e-6
        kv_bytes = kv_bytes_per_token(model, ranks) // ranks
        query_bytes = 2 * layers * heads * width  # one token's query and output
        decode_byte_s = 1 / (self.byte_s * hardware.decode_bandwidth_efficiency)
        prefill_byte_s = 1 / (self.byte_s * cost.prefill_bandwidth_efficiency)
        wire = hardware.interconnect_gb_s * 1e9 * hardware.all_reduce_efficiency
        ring = 2 * (ranks - 1) / ranks * model.hidden * width
        reduce_floor_s = 2 * layers * hardware.all_reduce_latency_us * 1e-6 if ranks > 1 else 0.0
        pcie_byte_s = 1 / (hardware.pcie_gb_s / 2 * 1e9 * cost.pcie_efficiency)
        self._grants = GrantPrices(cost, layers, self.byte_s, pcie_byte_s)
        self._flat = FlatPrices(
            flops_weights=float(always + model.active_experts * expert),
            always=float(always),
            expert=float(expert * (model.expert_bits or bits) / bits),
            experts=model.experts,
            active_experts=model.active_experts,
            head=float(head),
            head_read=float(head * (8.0 * width / bits)),
            gemm_s=1 / (self.flop_s * cost.gemm_efficiency),
            weight_s=weight_s * stack.weight_read_slowdown,
            exponent=float(cost.roofline_exponent),
            elementwise_floor_s=float(elementwise_floor_s * stack.small_kernel_slowdown),
            elementwise_s=self._elementwise_bytes() / elementwise_byte_s,
            reduce_floor_s=float(reduce_floor_s * stack.all_reduce_slowdown),
            reduce_token_s=2 * layers * ring / wire if ranks > 1 else 0.0,
            decode_floor_s=float(layers * hardware.decode_floor_us * 1e-6),
            decode_seq_s=float(query_bytes * decode_byte_s),
            decode_context_s=float(kv_bytes * decode_byte_s),
            prefill_floor_s=float(layers * cost.prefill_floor_us * 1e-6),
            prefill_tile_tokens=float(cost.prefill_tile_tokens),
            prefill_pair_s=4 * layers * heads / (self.flop_s * cost.prefill_efficiency),
            prefill_kv_s=kv_bytes * prefill_byte_s,
            prefill_query_s=query_bytes * prefill_byte_s,
            prefill_slowdown=1.0,
            block_tokens=0,
            entry_bytes=BLOCK_TABLE_ENTRY_BYTES,
            table_floor_s=float(cost.table_latency_us * 1e-6),
            table_byte_s=float(self.software.table_byte_s + pcie_byte_s),
            overlapped=bool(stack.overlapped),
            written_byte_s=float(self.software.written_byte_s),
            sampling_s=stack.sampling_us * 1e-6,
            step_s=self.software.step_s,
            sequence_s=stack.sequence_us * 1e-6,
            token_s=stack.token_us * 1e-6,
            piece_s=stack.prefill_us * 1e-6,
        )
        self._layers = layer_prices(model, hardware, cost, self._flat)
        self.layer_groups = tuple(layer.group for layer in self._layers)
        self._of_blocks = {0: self._flat}
        self._layers_of_blocks = {0: self._layers}

    # -- constants -----------------------------------------------------------------------------
    def of_blocks(self, block_tokens: int) -> FlatPrices:
        """Return the constants of steps whose kernels read tables of such blocks, 0 for none."""
        prices = self._of_blocks.get(block_tokens)
        if prices is None:
            prices = self._of_blocks[block_tokens] = self._with_tables(self._flat, block_tokens)
        return prices

    def layers_of_blocks(self, block_tokens: int) -> tuple[LayerPrices, ...]:
        """Return the constants of each layer group's attention, likewise."""
        layers = self._layers_of_blocks.get(block_tokens)
        if layers is None:
            layers = self._layers_of_blocks[block_tokens] = tuple(
                layer
                if layer.group.kind == "state"  # lies in one piece
                else layer._replace(prices=self._with_tables(layer.prices, block_tokens))
                for layer in self._layers
            )
        return layers

    def _with_tables(self, plain: FlatPrices, block_tokens: int) -> FlatPrices:
        stack, cost = self.software.spec, self.cost
        decode, prefill = stack.paged_decode_slowdown, stack.paged_prefill_slowdown
        blocks = block_slowdown(cost.block_decode_tokens, block_tokens)
        return plain._replace(
            decode_seq_s=float(plain.decode_seq_s * decode),
            decode_context_s=float(plain.decode_context_s * decode * blocks),
            prefill_slowdown=float(
                prefill * block_slowdown(cost.block_prefill_tokens, block_tokens)
            ),
            block_tokens=block_tokens,
        )

    def flatten(self, allocator: Allocator) -> FlatPrices:
        """Return all constants, of steps and of grants of this allocator."""
        geometry, grants = allocator.geometry, self._grants
        map_s, unmap_s = grants.call_s(allocator.page_bytes)
        prices = self.of_blocks(geometry.page_tokens if allocator.block_tables else 0)
        return prices._replace(
            calls=allocator.pages_per_group,
            map_s=map_s,
            unmap_s=unmap_s,
            copy_launch_s=self.cost.copy_launch_us * 1e-6,
            copy_byte_s=float(grants.copy_byte_s),
            bytes_per_token=geometry.bytes_per_token,
            ranks=geometry.ranks,
        )

    # -- a step --------------------------------------------------------------------------------

    def step(self, work: Work) -> Priced:
        """Return what one step takes, and on what; nothing for a step without any token."""
        new, past = work.prefill_new, work.prefill_past
        decodes, sampled = work.decode_seqs, work.sampled
        own = int(new.sum()) if len(new) else 0
        tokens = own + decodes
        if tokens == 0:
            return NOTHING
        prices = self.of_blocks(work.block_tokens)
        pieces = int(np.count_nonzero(new)) if own else 0
        rows, sent = decodes + pieces, work.table_bytes
        layers, reduce = flat.layers_s(prices, tokens, sampled), flat.reduce_s(prices, tokens)
        seconds = flat.before_s(prices, layers + reduce, rows, tokens, pieces, sampled)
        attention = 0.0
        if own:
            attention = self._prefill_s(new, past, work.block_tokens)
            seconds += attention
        if decodes:
            decode = self._decode_s(decodes, work.decode_context_tokens, work.block_tokens)
            seconds += decode
            attention += decode
        if sent:
            seconds += flat.tables_s(prices, float(sent))
        seconds = float(flat.beside_s(prices, seconds, rows, tokens, pieces, sampled, sent))
        return Priced(seconds, layers, attention, reduce)

    def decode_window(
        self,
        seqs: int,
        context_tokens: int | IntArray,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> Priced:
        """Return what these steps take, and on what; see `CostModel`."""
        if seqs == 0:
            return NOTHING._replace(seconds=np.zeros(steps))
        prices = self.of_blocks(block_tokens)
        if not self.layer_groups:
            context_tokens = context_tokens + seqs * np.arange(steps, dtype=np.int64)
        sent = np.asarray(table_bytes, dtype=np.float64)
        tables = np.where(sent > 0, flat.tables_s(prices, sent), 0.0)
        layers, reduce = flat.layers_s(prices, seqs, seqs), flat.reduce_s(prices, seqs)
        decode = self._decode_s(seqs, context_tokens, block_tokens)
        seconds = flat.before_s(prices, layers + reduce, seqs, seqs, 0, seqs) + decode + tables
        seconds = flat.beside_s(prices, seconds, seqs, seqs, 0, seqs, sent)
        return Priced(seconds, layers, decode, reduce)

    def _prefill_s(self, new: IntArray, past: IntArray, block_tokens: int) -> float:
        """Return the seconds of attention of pieces of prompts."""
        if self.layer_groups:
            return layered.prefill_s(self.layers_of_blocks(block_tokens), new, past)
        return flat.prefill_s(self.of_blocks(block_tokens), *causal_reads(new, past))

    def _decode_s(
        self, seqs: int, context_tokens: int | IntArray, block_tokens: int
    ) -> float | FloatArray:
        """Return the seconds of attention of `seqs` new tokens, in one step or in each of some."""
        if self.layer_groups:
            return layered.decode_s(self.layers_of_blocks(block_tokens), seqs, context_tokens)
        if not isinstance(context_tokens, int):
            context_tokens = context_tokens.astype(np.float64)
        return flat.decode_s(self.of_blocks(block_tokens), seqs, context_tokens)

    # -- a grant -------------------------------------------------------------------------------

    def grant(self, grant: Grant, allocator: Allocator) -> PricedGrant:
        """Return what a grant takes before the step computes, and on what."""
        return self._grants.grant(grant, allocator)

    def overlapped_s(
        self, compute_s: float, grants: Sequence[Grant], allocator: Allocator
    ) -> float:
        """Return the seconds in which a step computes while its grants' bytes are sent."""
        return self._grants.overlapped_s(compute_s, grants, allocator)

    def _elementwise_bytes(self) -> float:
        """Return the bytes a token's small kernels move, all layers: reads and writes.

        The rotary embedding's; of a state, those of its convolution and its gates.
        """
        model = self.model
        norms_and_adds = 2 * (2 + 3) * model.hidden
        wide, total = model.ffn * model.active_experts / self.ranks, 0.0
        for layer in settled_layers(model):
            rotary = 2 * (layer.heads + 2 * layer.kv_heads) * layer.head_dim / self.ranks
            if layer.kind == "state":
                rotary = 2 * (layer.conv_channels + layer.inner) / self.ranks
            total += layer.layers * model.dtype_bytes * (norms_and_adds + rotary + 3 * wide)
        shared = expert_layers(model) * model.shared_ffn / self.ranks
        dense = model.dense_layers * (model.dense_ffn / self.ranks - wide)
        return total + 3 * model.dtype_bytes * (shared + dense)
