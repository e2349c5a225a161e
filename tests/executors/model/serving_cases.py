"""Small real runs: a decoder of a few thousand weights, pools under pressure, and what was seen."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost.kv import kv_geometry
from harness.cost.layers import LayerSpec
from harness.cost.shapes import ModelShape
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from harness.executors.model.decoder import build_decoder
from harness.executors.model.executor import ModelExecutor
from kernels.memory import backing_for
from tests.kernels.memory.expected import expected_bytes
from workloads.requests import RequestTable

#: 64 KiB hold 32 tokens of one tensor of LLAMA, 16 of one that has all its layers
LLAMA = ModelShape(
    name="llama", family="llama", layers=2, hidden=64, heads=8, kv_heads=4, head_dim=128, ffn=96,
    vocab=199, max_context=128, dtype_bytes=4,
)  # fmt: skip
OPT = ModelShape(
    name="opt", family="opt", layers=2, hidden=128, heads=4, kv_heads=4, head_dim=32, ffn=96,
    vocab=199, max_context=128, dtype_bytes=4, gated_ffn=False, tied_embeddings=True,
    learned_positions=True, linear_bias=True,
)  # fmt: skip
#: 64 KiB hold 32 tokens, more than a window
GEMMA = ModelShape(
    name="gemma3", family="gemma3", layers=6, hidden=64, heads=8, kv_heads=4, head_dim=128, ffn=96,
    vocab=199, max_context=128, dtype_bytes=4, tied_embeddings=True, qk_norm=True, post_norms=True,
    layer_groups=[LayerSpec("sliding", 5, window=20), LayerSpec("full", 1)],
)  # fmt: skip
GPT_OSS = ModelShape(
    name="gpt_oss", family="gpt_oss", layers=4, hidden=64, heads=8, kv_heads=4, head_dim=128,
    ffn=48, vocab=199, max_context=128, dtype_bytes=4, linear_bias=True, experts=4,
    active_experts=2, layer_groups=[LayerSpec("sliding", 2, window=20), LayerSpec("full", 2)],
)  # fmt: skip
SAMPLING = {
    "greedy": SamplingSpec("greedy"),
    "parallel": SamplingSpec("parallel", n=3, temperature=0.9, top_p=0.9),
    "beam": SamplingSpec("beam", width=4),
}
ROOMY_TOKENS, TIGHT_TOKENS = 6000, 300


@cache
def decoder_of(shape_name):
    shape = {"llama": LLAMA, "opt": OPT, "gemma3": GEMMA, "gpt_oss": GPT_OSS}[shape_name]
    return build_decoder(
        shape, device="cpu", dtype=torch.float32, seed=7, weights=None, batch_invariant=True
    )


def geometry(
    shape=LLAMA, tokens=ROOMY_TOKENS, host_tokens=0, max_len=64, max_seqs=32, step_tokens=0
):
    return kv_geometry(
        shape, 1, capacity_tokens=tokens, host_tokens=host_tokens, max_seqs=max_seqs,
        max_len=max_len, step_tokens=step_tokens,
    )  # fmt: skip


def requests(n=8, seed=0, longest=(40, 18), prefix_tokens=17):
    """Return `n` requests at once; some prompts begin alike, some are shorter than that."""
    rng = np.random.default_rng(seed)
    return RequestTable(
        arrival_s=np.zeros(n),
        prompt_tokens=rng.integers(1, longest[0] + 1, n),
        output_tokens=rng.integers(1, longest[1] + 1, n),
        prefix_id=rng.integers(0, 2, n),
        prefix_tokens=prefix_tokens,
    )


@dataclass
class Seen:
    """What happened in a run, so that a test can say that it was not idle."""

    digest: str = ""
    outputs: list = field(default_factory=list)
    scores: list = field(default_factory=list)
    log: object = None
    copies: int = 0
    swaps: int = 0
    maps: int = 0
    hits: int = 0
    grants: list = field(default_factory=list)
    lineages: dict = field(default_factory=dict)

    @property
    def preemptions(self):
        return int(self.log.timeline["preemptions"].sum())


class Watcher:
    """Notes every grant of every step, and compares memory with what the allocator says."""

    def __init__(self, seen, memory=None):
        self._seen, self._memory = seen, memory

    def on_step(self, step):
        seen = self._seen
        step.allocator.check()
        for grant in step.plan.all_grants:
            seen.copies += len(grant.copies)
            seen.swaps += len(grant.swaps_out) + len(grant.swaps_in)
            seen.maps += len(grant.maps)
        seen.hits += step.plan.hit_tokens
        seen.grants.append([plain(grant) for grant in step.plan.all_grants])
        for group in step.running.groups.values():
            seen.lineages[group.index] = group.lineage
        if self._memory is not None:
            held, told = self._memory.resident_bytes(), expected_bytes(step.allocator)
            assert held == told, f"{held} bytes are resident, the allocator says {told}"


def plain(grant):
    """Return a grant as something that `==` compares."""
    arrays = ("copies", "maps", "unmaps", "swaps_out", "swaps_in")
    return (grant.cached_tokens, *(getattr(grant, name).tolist() for name in arrays))


def serve(
    allocator,
    table,
    mode="greedy",
    shape="llama",
    *,
    sampling=None,
    decoder=None,
    backend="cpu",
    poison=True,
    watch_memory=False,
    seed=5,
    capture=None,
    single=False,
    warm_up=False,
    watchers=(),
    **engine,
):
    """Serve `table` for real; the KV of a pool is NaN until it is written.

    `watchers` are made of the memory, and see every step.
    """
    seen = Seen()
    sampling = sampling or SAMPLING[mode]
    decoder = decoder or decoder_of(shape)
    memory = backing_for(allocator, dtype=torch.float32)
    if poison and not allocator.pages_per_group:
        for layer in range(allocator.geometry.layers):
            memory.keys(layer).fill_(torch.nan)
            memory.values(layer).fill_(torch.nan)
    observers = [Watcher(seen, memory if watch_memory else None)]
    observers += [make(memory) for make in watchers]
    executor = ModelExecutor(
        decoder, allocator, memory, table, sampling, seed, backend, single=single, capture=capture
    )
    if warm_up:
        executor.warm_up()
    with executor:
        options = EngineSpec(max_num_seqs=allocator.geometry.max_seqs, **engine)
        serving = Engine(Setup(allocator, table, sampling, options, executor, seed, observers))
        seen.log = serving.run("real")
        seen.log.check()
        allocator.check()
    seen.digest = executor.histories.digest()
    seen.outputs = [executor.histories.output(i) for i in range(len(table))]
    if sampling.mode == "beam":
        seen.scores = [executor.sampler.beam_scores[i].tolist() for i in range(len(table))]
    return seen


def contiguous(tokens=TIGHT_TOKENS, host=0, shape=LLAMA, **knobs):
    return Contiguous(geometry(shape, tokens, host), **knobs)


def paged(tokens=TIGHT_TOKENS, host=0, shape=LLAMA, **knobs):
    return Paged(geometry(shape, tokens, host), **knobs)


def virtual(tokens=TIGHT_TOKENS, host=0, shape=LLAMA, **knobs):
    return Virtual(geometry(shape, tokens, host), **{"page_size": "64KiB", **knobs})
