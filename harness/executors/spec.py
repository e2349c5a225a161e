"""Options of the executor, as Hydra knows them; importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

EXECUTORS = ("simulated", "model")
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MODES = ("mapped", "demand")
PACKINGS = ("padded", "dense")
HANDLES = ("auto", "on_demand", "ahead")


@dataclass
class ExecutorSpec:
    """`simulated` prices steps; `model` runs a decoder, and the rest are its options.

    `device`, `dtype`, `backend` (of attention) on `auto`: a GPU if torch sees one, in the bytes of
    `model.dtype_bytes` with the Triton kernels; else the CPU in float32 with the compiled kernel
    (where Numba is not installed, with the reference).
    `weights`: a directory of safetensors with its config.json, from which the model's shape is
    taken; null: random, drawn with `seed`.  `batch_invariant`: the numbers of a sequence do not
    depend on what else is in its batch, to the bit (null: in float32); it costs padding.
    `cuda_graphs`: on a GPU, steps in which all decode are captured and replayed.
    `max_requests`: serve that many requests of the workload (null: all).  `pool_mib`: memory for
    KV where neither kv_memory_gib nor kv_tokens is given (null: on a GPU what the weights leave).
    `memory`, `packing` and `handles` are those of a virtual backing, see docs/kernels.md; `auto`:
    on demand on a CPU and with layer groups, else ahead on a GPU, as vAttention.
    """

    name: str = "simulated"
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    weights: str | None = None
    batch_invariant: bool | None = None
    cuda_graphs: bool = True
    max_requests: int | None = None
    pool_mib: float | None = None
    memory: str = "mapped"
    packing: str = "padded"
    handles: str = "auto"
