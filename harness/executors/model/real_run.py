"""What a real run is built of: one decoder, and memory and an executor for each allocator."""

from __future__ import annotations

from pathlib import Path

import torch

from allocators.base import Allocator
from harness.cost.shapes import ModelShape
from harness.engine.config import SamplingSpec
from harness.errors import ConfigError
from harness.executors.model.decoder import build_decoder
from harness.executors.model.executor import ModelExecutor
from harness.executors.model.graphs import CudaCapture
from harness.executors.spec import ExecutorSpec
from kernels.memory import backing_for
from workloads.requests import RequestTable


class RealRun:
    """A decoder, and the memory and executor of each allocator that is run on it."""

    def __init__(self, spec: ExecutorSpec, model: ModelShape, seed: int) -> None:
        """Load or draw the weights.  `spec` is settled.  Raises `ConfigError`."""
        self.spec, self.seed = spec, seed
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        try:
            self.decoder = build_decoder(
                model,
                device=spec.device,
                dtype=self.dtype,
                seed=seed,
                weights=Path(spec.weights) if spec.weights else None,
                batch_invariant=spec.batch_invariant,
            )
        except torch.OutOfMemoryError as error:
            raise ConfigError(f"{model.name}: no memory for the weights: {error}") from error

    def executor(
        self, allocator: Allocator, requests: RequestTable, sampling: SamplingSpec
    ) -> ModelExecutor:
        """Take memory and return an executor, warmed up; closing it gives the memory back.

        Raises `Unsupported`, `kernels.memory.OutOfMemory`.
        """
        memory = backing_for(
            allocator,
            dtype=self.dtype,
            device=self.spec.device,
            mode=self.spec.memory,
            packing=self.spec.packing,
            handles=self.spec.handles,
        )
        try:
            executor = ModelExecutor(
                self.decoder,
                allocator,
                memory,
                requests,
                sampling,
                self.seed,
                self.spec.backend,
                # Triton's prefill and decode round differently; the cpu kernel's do not.
                single=bool(self.spec.batch_invariant) and self.spec.backend == "triton",
                capture=self._capture(),
            )
            executor.warm_up()
        except BaseException:
            memory.close()
            raise
        return executor

    def _capture(self) -> CudaCapture | None:
        # The others wait for the device within a pass, which a capture cannot.
        if self.spec.cuda_graphs and self.spec.device == "cuda" and self.spec.backend == "triton":
            return CudaCapture()
        return None
