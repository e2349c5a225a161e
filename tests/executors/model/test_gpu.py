"""What only a GPU has: steps replayed from captured graphs, and half precision that is quick."""

import pytest
import torch

from tests.executors.model.by_device import SAMPLING, Stage, stage, variants

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

VARIANTS = variants("cuda", "small")


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("mode", SAMPLING)
def test_captured_graphs_change_no_token(mode, variant):
    eager = stage("cuda", "small", cuda_graphs=False).alone(mode)
    assert stage("cuda", "small").serve(variant, mode).facts["digest"] == eager.facts["digest"]


@pytest.mark.parametrize("invariant", [True, False])
def test_bfloat16_runs_with_and_without_invariance(invariant):
    here = Stage("cuda", "small", dtype="bfloat16", batch_invariant=invariant)
    assert len(here.serve(VARIANTS[0], "greedy").outputs) == len(here.requests)
