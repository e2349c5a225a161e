"""What a server leaves for the KV cache: a budget of the GPU's memory, part by part.

A server looks at the GPU once, before it serves: of the memory that CUDA reports it takes a share,
loads the weights, runs the largest step it will ever run, and gives the KV cache what is left
(vLLM: `determine_available_memory` in vllm/v1/worker/gpu_worker.py).  What a release keeps beside
weights and KV is a `MemorySpec`, and each part of the budget is a function here.  The constants are
in `conf/memory`, a file for each release; `docs/cost.md` compares the budget with pools that
servers have reported, and says which of them the constants were fitted to.

All parts are bytes of one rank: tensor parallelism splits the weights and the feed-forward's width,
and every rank holds the hidden states and, to sample, the logits of the whole vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.cost.kv import kv_bytes_per_token
from harness.cost.parameters import weight_bytes
from harness.cost.shapes import CostError, HardwareSpec, ModelShape

GIB = 2**30
#: which rows of the largest step the output head computes
LOGITS_OF = ("sequences", "tokens")
#: ranks that an error looks through for one that suffices
MOST_RANKS = 4096


@dataclass
class MemorySpec:
    """What one release of a server keeps on each GPU beside weights and KV, in GiB.

    The defaults are those of vLLM 0.15, which `conf/memory/vllm-0.15.yaml` repeats.
    """

    name: str = "vllm-0.15"
    #: the largest step's peak, in place of the estimate (null: `activation_bytes`)
    activation_gib: float | None = None
    #: bytes that sampling holds for each logit at its peak: copies, a sort, probabilities
    logit_bytes: float = 38.0
    #: logits of each running sequence, or of every token of the step (the servers of 2023)
    logits_of: str = "sequences"
    #: activations of any step whatever its size: inputs, positions, allocator rounding
    activation_base_gib: float = 0.06
    #: CUDA graphs, where the server takes them off the pool (vLLM does since 0.21; earlier ones
    #: capture them afterwards, in what `hardware.memory_utilization` leaves out)
    graph_gib: float = 0.0
    #: outside the framework's allocator: kernels, cuBLAS, attention workspaces
    context_gib: float = 0.13
    #: NCCL and custom all-reduce buffers, with more than one rank
    communication_gib: float = 0.42


@dataclass(frozen=True)
class MemoryBudget:
    """The memory of one rank and what becomes of it; `ranks` ranks hold as much each.

    total_bytes: what CUDA reports.  share: how much of it the server may use.
    """

    ranks: int
    total_bytes: int
    share: float
    weight_bytes: int
    activation_bytes: int
    graph_bytes: int
    communication_bytes: int
    context_bytes: int

    @property
    def usable_bytes(self) -> int:
        return int(self.total_bytes * self.share)

    @property
    def overhead_bytes(self) -> int:
        """What is neither weights nor KV."""
        return (
            self.activation_bytes + self.graph_bytes + self.communication_bytes + self.context_bytes
        )

    @property
    def left_bytes(self) -> int:
        """What the KV cache gets; negative when the parts do not fit."""
        return self.usable_bytes - self.weight_bytes - self.overhead_bytes


def memory_budget(
    model: ModelShape,
    hardware: HardwareSpec,
    memory: MemorySpec,
    step_tokens: int,
    sequences: int,
) -> MemoryBudget:
    """Return how a rank's memory is split where a step has `step_tokens` tokens at most.

    `step_tokens` is vLLM's max_num_batched_tokens, `sequences` its max_num_seqs.
    """
    ranks = hardware.count
    return MemoryBudget(
        ranks=ranks,
        total_bytes=int(hardware.memory_gb * GIB),
        share=hardware.memory_utilization,
        weight_bytes=-(-weight_bytes(model) // ranks),
        activation_bytes=activation_bytes(model, memory, ranks, step_tokens, sequences),
        graph_bytes=graph_bytes(memory),
        communication_bytes=communication_bytes(memory, ranks),
        context_bytes=context_bytes(memory),
    )


def activation_bytes(
    model: ModelShape, memory: MemorySpec, ranks: int, step_tokens: int, sequences: int
) -> int:
    """Return the peak of one rank's activations in the largest step (`memory.activation_gib`).

    vLLM measures it on a step of invented tokens and prints it as "torch peak memory increase", or
    "PyTorch activation peak memory" in the first engine.  The layers and the sampling follow each
    other, so the larger of the two counts; the buffers of a mixture's experts are kept for the next
    step and count with either.
    """
    if memory.activation_gib is not None:
        return int(memory.activation_gib * GIB)
    sampled = min(sequences, step_tokens) if memory.logits_of == "sequences" else step_tokens
    hidden = step_tokens * model.hidden * model.dtype_bytes
    sampling = hidden + int(sampled * model.vocab * memory.logit_bytes)
    peak = max(_layer_bytes(model, ranks, step_tokens), sampling)
    return peak + _expert_bytes(model, ranks, step_tokens) + int(memory.activation_base_gib * GIB)


def graph_bytes(memory: MemorySpec) -> int:
    """Return what the server sets aside for CUDA graphs (`memory.graph_gib`).

    vLLM since 0.21 takes its "Estimated CUDA graph memory" off the pool
    (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS, vllm-project/vllm issue 45178); before, nothing.
    """
    return int(memory.graph_gib * GIB)


def communication_bytes(memory: MemorySpec, ranks: int) -> int:
    """Return the buffers of one rank's collectives (`memory.communication_gib`); alone, none.

    The step from one rank to two in vLLM's "non-torch forward increase memory".
    """
    return int(memory.communication_gib * GIB) if ranks > 1 else 0


def context_bytes(memory: MemorySpec) -> int:
    """Return what kernels and libraries take outside the allocator (`memory.context_gib`).

    vLLM's "non-torch forward increase memory" on one rank.  The CUDA context itself, some
    0.5 GiB, is there before the server looks, and lies in the share that it does not use.
    """
    return int(memory.context_gib * GIB)


def kv_pool_bytes(
    model: ModelShape,
    hardware: HardwareSpec,
    memory: MemorySpec,
    step_tokens: int,
    sequences: int,
) -> int:
    """Return the bytes that the KV cache gets, summed over the ranks.

    Raises `CostError` when there is no room for a single token.
    """

    if hardware.count < 1:
        raise CostError(f"hardware.count must be at least 1, got {hardware.count}")

    def budget(ranks: int) -> MemoryBudget:
        split = replace(hardware, count=ranks)
        return memory_budget(model, split, memory, step_tokens, sequences)

    def has_room(ranks: int) -> bool:
        return budget(ranks).left_bytes * ranks >= kv_bytes_per_token(model, ranks)

    given = budget(hardware.count)
    if has_room(hardware.count):
        return given.left_bytes * given.ranks
    enough = next(filter(has_room, range(hardware.count + 1, MOST_RANKS + 1)), None)
    if enough is None:  # what every rank holds whole fills it alone
        least = budget(MOST_RANKS)
        set_by = "engine.max_num_batched_tokens or engine.max_len"
        if memory.activation_gib is not None:
            set_by = "memory.activation_gib"
        raise CostError(
            f"{model.name} does not fit on any number of {hardware.name}: of each one's "
            f"{least.usable_bytes / GIB:.1f} GiB the activations of a step of {step_tokens} tokens "
            f"and buffers take {least.overhead_bytes / GIB:.1f}; lower {set_by}"
        )
    raise CostError(
        f"{model.name} needs {weight_bytes(model) / GIB:.1f} GiB for its weights and "
        f"{given.ranks} x {hardware.name} offers {given.usable_bytes * given.ranks / GIB:.1f} GiB "
        f"({given.ranks} x {hardware.memory_gb:g} GiB x {hardware.memory_utilization:g}), "
        f"{given.overhead_bytes * given.ranks / GIB:.1f} of it for activations and buffers, which "
        f"leaves nothing for the KV cache; use hardware.count={enough} or more"
    )


def _layer_bytes(model: ModelShape, ranks: int, tokens: int) -> int:
    """Return what a layer holds at its peak, in the feed-forward.

    The residual, the feed-forward's input and the token embeddings are [tokens, hidden]; its first
    product is [tokens, 2 ffn / ranks] where it is gated, the activation's result
    [tokens, ffn / ranks].  Of a mixture they are those of shared experts and of dense layers; its
    experts' own are in `_expert_bytes`.
    """
    ffn = max(model.shared_ffn, model.dense_ffn) if model.experts > 1 else model.ffn
    width = ffn * (3 if model.gated_ffn else 2) / ranks
    return int(tokens * (3 * model.hidden + width) * model.dtype_bytes)


def _expert_bytes(model: ModelShape, ranks: int, tokens: int) -> int:
    """Return the buffers of the experts' products; 0 for a dense model.

    Each token has a row for each of its experts.  The first product and the last share one buffer,
    the activation's result has its own (vLLM's fused_moe).
    """
    if model.experts == 1:
        return 0
    width = model.ffn / ranks
    first = width * (2 if model.gated_ffn else 1)
    rows = tokens * model.active_experts
    return int(rows * (max(first, model.hidden) + width) * model.dtype_bytes)
