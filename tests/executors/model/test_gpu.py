"""The executor on a GPU: identity in float32, with and without captured graphs."""

import pytest
import torch

from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.config import EngineSpec
from harness.engine.engine import Engine
from harness.executors.model.real_run import RealRun
from harness.executors.model.settings import settle
from harness.executors.spec import ExecutorSpec
from harness.run.config import ModelShape
from kernels.memory.virtual_cuda import probe_vmm
from tests.executors.model.serving_cases import ROOMY_TOKENS, SAMPLING, geometry, requests

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

#: a 2 MiB page holds 512 tokens of one of its tensors
SHAPE = ModelShape(
    name="tiny", family="llama", layers=2, hidden=256, heads=8, kv_heads=8, head_dim=128, ffn=512,
    vocab=503, max_context=1024,
)  # fmt: skip
ALLOCATORS = {
    "contiguous_grow": lambda pool: Contiguous(pool, reservation="grow"),
    "paged_1": lambda pool: Paged(pool, block_size=1),
    "paged_16_hash": lambda pool: Paged(pool, block_size=16, prefix_index="hash"),
    "virtual": lambda pool: Virtual(pool, page_size="2MiB"),
}


def serve(name, mode, **options):
    engine = {key: options.pop(key) for key in ("preemption",) if key in options}
    tokens = options.pop("tokens", 16 * ROOMY_TOKENS)
    spec = ExecutorSpec("model", device="cuda", **{"dtype": "float32", **options})
    shape = settle(spec, SHAPE)
    pool = geometry(shape, tokens=tokens, host_tokens=tokens, max_len=128)
    allocator, table, sampling = ALLOCATORS[name](pool), requests(), SAMPLING[mode]
    real = RealRun(spec, shape, seed=5)
    with real.executor(allocator, table, sampling) as executor:
        settings = EngineSpec(max_num_seqs=pool.max_seqs, **engine)
        log = Engine(allocator, table, sampling, settings, executor, 5).run(name)
        log.check()
        return executor.histories.digest(), log


@pytest.mark.parametrize("mode", SAMPLING)
@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_allocator_emits_the_same_tokens(name, mode):
    if name == "virtual" and not probe_vmm().ok:
        pytest.skip(probe_vmm().reason)
    expected, _ = serve("contiguous_grow", mode, cuda_graphs=False)
    assert serve(name, mode)[0] == expected


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_pressure_changes_no_token(preemption):
    expected, _ = serve("contiguous_grow", "beam", cuda_graphs=False)
    found, log = serve("paged_16_hash", "beam", tokens=300, preemption=preemption)
    assert found == expected
    assert log.timeline["preemptions"].sum()


def test_bfloat16_runs_with_and_without_invariance():
    for invariant in (True, False):
        _, log = serve("paged_16_hash", "greedy", dtype="bfloat16", batch_invariant=invariant)
        assert len(log.requests["id"]) == len(requests())
