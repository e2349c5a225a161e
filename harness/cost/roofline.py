"""The roofline cost model: how long a serving step takes on given hardware.

A step runs every layer once over all its tokens.  Its time is the sum of parts that do not overlap:

    linear      every weight is read once; each token costs 2 FLOP a weight
    elementwise norms, residual adds, rotary, activation: bandwidth, or a floor
    prefill     attention of prompt pieces: compute-bound, quadratic
    decode      attention of one new token a sequence: reads the whole KV, bound by bandwidth
    all_reduce  two a layer under tensor parallelism
    tables      block tables written by the host and sent to the device
    software    scheduling, launching, sampling: `harness.cost.software`

Only `decode` and `tables` change while a batch just decodes, both by functions that take a number
or an array: skipping ahead over n steps gives the very bits of n single steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from allocators.base import Allocator, Grant, IntArray
from harness.cost import shapes
from harness.cost.curves import FloatArray
from harness.cost.grants import GrantPrices
from harness.cost.limits import check_cost, check_hardware
from harness.cost.priced import NOTHING, Priced, PricedGrant
from harness.cost.shapes import HardwareSpec, ModelShape
from harness.cost.software import Load, Number, Software, SoftwareSpec
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
    read, the new token included; `sampled` counts the sequences that produce a token, and
    `table_bytes` the block tables sent to the device.  `block_tokens` are the tokens of a block, 0
    where kernels read no block tables.
    """

    prefill_new: IntArray = field(default_factory=_no_pieces)
    prefill_past: IntArray = field(default_factory=_no_pieces)
    decode_seqs: int = 0
    decode_context_tokens: int = 0
    sampled: int = 0
    table_bytes: int = 0
    block_tokens: int = 0


class Roofline:
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

        # linear layers
        expert = model.layers * shapes.expert_parameters(model) / ranks
        layer = shapes.attention_parameters(model) + shapes.router_parameters(model)
        self._always = model.layers * layer / ranks  # weights every token passes
        self._expert = expert  # weights of one expert, all layers
        self._head = model.vocab * model.hidden / ranks
        self._gemm_s = 1 / (self.flop_s * cost.gemm_efficiency)  # seconds a FLOP
        self._weight_s = width / (self.byte_s * cost.weight_bandwidth_efficiency)  # ... a weight
        self._weight_s *= stack.weight_read_slowdown
        self._elementwise_s = self._elementwise_bytes() / (
            self.byte_s * cost.elementwise_bandwidth_efficiency
        )  # ... a token
        self._elementwise_floor_s = (
            model.layers * ELEMENTWISE_KERNELS * cost.elementwise_floor_us * 1e-6
        ) * stack.small_kernel_slowdown

        # attention, all layers
        heads = max(1, -(-model.heads // ranks)) * model.head_dim
        kv = shapes.kv_heads_per_rank(model, ranks) * model.head_dim
        kv_bytes = 2 * model.layers * kv * width  # one token's KV
        query_bytes = 2 * model.layers * heads * width  # one token's query and output
        decode_byte_s = 1 / (self.byte_s * hardware.decode_bandwidth_efficiency)
        self._decode_context_s = kv_bytes * decode_byte_s
        self._decode_seq_s = query_bytes * decode_byte_s
        self._decode_floor_s = model.layers * hardware.decode_floor_us * 1e-6
        self._prefill_pair_s = 4 * model.layers * heads / (self.flop_s * cost.prefill_efficiency)
        prefill_byte_s = 1 / (self.byte_s * cost.prefill_bandwidth_efficiency)
        self._prefill_kv_s = kv_bytes * prefill_byte_s
        self._prefill_query_s = query_bytes * prefill_byte_s
        self._prefill_floor_s = model.layers * cost.prefill_floor_us * 1e-6

        # everything else
        wire = hardware.interconnect_gb_s * 1e9 * hardware.all_reduce_efficiency
        ring = 2 * (ranks - 1) / ranks * model.hidden * width
        self._reduce_token_s = 2 * model.layers * ring / wire if ranks > 1 else 0.0
        self._reduce_floor_s = (
            2 * model.layers * hardware.all_reduce_latency_us * 1e-6 if ranks > 1 else 0.0
        ) * stack.all_reduce_slowdown
        self._table_floor_s = cost.table_latency_us * 1e-6
        pcie_byte_s = 1 / (hardware.pcie_gb_s / 2 * 1e9 * cost.pcie_efficiency)
        self._table_byte_s = self.software.table_byte_s + pcie_byte_s
        self._grants = GrantPrices(cost, model.layers, self.byte_s, pcie_byte_s)

    # -- a step --------------------------------------------------------------------------------
    def step_s(self, work: Work) -> float:
        """Return the seconds one step takes; 0 for a step without any token."""
        return cast(float, self.step(work).seconds)

    def step(self, work: Work) -> Priced:
        """Return what one step takes, and on what; nothing for a step without any token."""
        new, past = work.prefill_new, work.prefill_past
        prefill_tokens = int(new.sum()) if len(new) else 0
        tokens = prefill_tokens + work.decode_seqs
        if tokens == 0:
            return NOTHING
        pieces = int(np.count_nonzero(new)) if prefill_tokens else 0
        load = Load(work.decode_seqs + pieces, tokens, pieces, work.sampled)
        linear, reduce = self._layers_s(load)
        gpu_s, attention = self.software.before_s(linear + reduce, load), 0.0
        if prefill_tokens:
            attention = self._prefill_s(new, past, work.block_tokens)
            gpu_s += attention
        if work.decode_seqs:
            context = float(work.decode_context_tokens)
            decode = self._decode_s(work.decode_seqs, context, work.block_tokens)
            gpu_s += decode
            attention += decode
        gpu_s += self._table_s(work.table_bytes)
        seconds = self.software.beside_s(gpu_s, load, work.table_bytes)
        return Priced(seconds, linear, attention, reduce)

    def decode_window_s(
        self,
        seqs: int,
        context_tokens: int,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> FloatArray:
        """Return [steps] seconds of consecutive steps in which `seqs` sequences decode and sample.

        Step j reads context_tokens + j * seqs tokens of KV and sends table_bytes[j] (or the same
        number each step).  Bitwise equal to `step_s` of each step.
        """
        priced = self.decode_window(seqs, context_tokens, steps, table_bytes, block_tokens)
        return cast(FloatArray, priced.seconds)

    def decode_window(
        self,
        seqs: int,
        context_tokens: int,
        steps: int,
        table_bytes: IntArray | int,
        block_tokens: int,
    ) -> Priced:
        """Return what these steps take, and on what; see `decode_window_s`."""
        if seqs == 0:
            return NOTHING._replace(seconds=np.zeros(steps))
        context = (context_tokens + seqs * np.arange(steps, dtype=np.int64)).astype(np.float64)
        if isinstance(table_bytes, np.ndarray):
            sent = table_bytes.astype(np.float64)
            tables = np.where(table_bytes > 0, self._table_floor_s + sent * self._table_byte_s, 0.0)
        else:
            tables = np.full(steps, self._table_s(table_bytes))
        load = Load(seqs, seqs, 0, seqs)
        linear, reduce = self._layers_s(load)
        decode = self._decode_s(seqs, context, block_tokens)
        gpu_s = self.software.before_s(linear + reduce, load) + decode + tables
        return Priced(self.software.beside_s(gpu_s, load, table_bytes), linear, decode, reduce)

    # -- a grant -------------------------------------------------------------------------------
    def grant_s(self, grant: Grant, allocator: Allocator) -> float:
        """Return the seconds of what a grant asks for before the step computes."""
        return self.grant(grant, allocator).seconds

    def grant(self, grant: Grant, allocator: Allocator) -> PricedGrant:
        """Return what a grant takes before the step computes, and on what."""
        return self._grants.grant(grant, allocator)

    def overlapped_s(
        self, compute_s: float, grants: Sequence[Grant], allocator: Allocator
    ) -> float:
        """Return the seconds in which a step computes while its grants' bytes are sent."""
        return self._grants.overlapped_s(compute_s, grants, allocator)

    # -- parts of a step -----------------------------------------------------------------------
    def _layers_s(self, load: Load) -> tuple[float, float]:
        """Return what the layers take without attention: linear and elementwise; all-reduce."""
        tokens = load.tokens
        linear = self._linear_s(tokens, load.sampled)
        linear += max(self._elementwise_floor_s, tokens * self._elementwise_s)
        return linear, self._reduce_floor_s + tokens * self._reduce_token_s

    def _decode_s(self, seqs: int, context: Number, block_tokens: int) -> Number:
        """Return the attention of decodes; a number and an array take the same path."""
        slow = self.software.spec.paged_decode_slowdown if block_tokens else 1.0
        blocks = block_slowdown(self.cost.block_decode_tokens, block_tokens)
        read = context * (self._decode_context_s * slow * blocks)
        fixed = self._decode_floor_s + seqs * (self._decode_seq_s * slow)
        return cast(Number, fixed + read)

    def _linear_s(self, tokens: int, sampled: int) -> float:
        model = self.model
        flops_weights = self._always + model.active_experts * self._expert
        bytes_weights = self._always + self._experts_touched(tokens) * self._expert
        body = self.matmul_s(2 * tokens * flops_weights, bytes_weights)
        if not sampled:
            return body
        return body + self.matmul_s(2 * sampled * self._head, self._head)

    def matmul_s(self, flops: float, weights: float) -> float:
        """Return the seconds of matrix products of `flops` in all that read `weights` numbers."""
        p = self.cost.roofline_exponent
        return ((flops * self._gemm_s) ** p + (weights * self._weight_s) ** p) ** (1 / p)

    def _experts_touched(self, tokens: int) -> float:
        """Return the expected number of distinct experts read, with uniform routing."""
        experts, active = self.model.experts, self.model.active_experts
        if experts == 1:
            return 1.0
        return experts * (1 - (1 - active / experts) ** tokens)

    def _elementwise_bytes(self) -> float:
        """Return the bytes a token's small kernels move, all layers: reads and writes."""
        model = self.model
        norms_and_adds = 2 * (2 + 3) * model.hidden
        rotary = 2 * (model.heads + 2 * model.kv_heads) * model.head_dim / self.ranks
        wide = model.ffn * model.active_experts / self.ranks
        return model.layers * model.dtype_bytes * (norms_and_adds + rotary + 3 * wide)

    def _prefill_s(self, new: IntArray, past: IntArray, block_tokens: int) -> float:
        """Causal attention of pieces: 4 FLOP a (query, key, channel), or their bytes if slower."""
        own = new.astype(np.float64)
        total = past + own
        pairs = float((own * (past + (own + self.cost.prefill_tile_tokens) / 2)).sum())
        compute = pairs * self._prefill_pair_s
        memory = float(total.sum()) * self._prefill_kv_s + float(own.sum()) * self._prefill_query_s
        slow = self.software.spec.paged_prefill_slowdown if block_tokens else 1.0
        slow *= block_slowdown(self.cost.block_prefill_tokens, block_tokens)
        return self._prefill_floor_s + slow * max(compute, memory)

    def _table_s(self, table_bytes: int) -> float:
        return self._table_floor_s + float(table_bytes) * self._table_byte_s if table_bytes else 0.0
