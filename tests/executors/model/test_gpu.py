"""What only a GPU has: steps replayed from captured graphs, and half precision that is quick."""

import pytest
import torch

from tests.executors.model.by_device import SAMPLING, Stage, stage, variants
from tests.executors.model.layers_by_device import MODELS, LayeredStage, layered_stage
from tests.executors.model.layers_by_device import variants as layered_variants

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

VARIANTS = variants("cuda", "small")


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("mode", SAMPLING)
def test_captured_graphs_change_no_token(mode, variant):
    eager = stage("cuda", "small", cuda_graphs=False).alone(mode)
    assert stage("cuda", "small").serve(variant, mode).facts["digest"] == eager.facts["digest"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("variant", layered_variants("cuda", "small"), ids=str)
def test_captured_graphs_of_layer_groups_change_no_token(variant, model):
    eager = layered_stage("cuda", "small", model, cuda_graphs=False).alone("greedy")
    found = layered_stage("cuda", "small", model).serve(variant, "greedy")
    assert found.facts["digest"] == eager.facts["digest"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("invariant", [True, False])
def test_layer_groups_run_in_bfloat16_with_and_without_invariance(model, invariant):
    here = LayeredStage("cuda", "small", model, dtype="bfloat16", batch_invariant=invariant)
    for variant in layered_variants("cuda", "small"):
        assert len(here.serve(variant, "greedy").outputs) == len(here.requests)


@pytest.mark.parametrize("invariant", [True, False])
def test_bfloat16_runs_with_and_without_invariance(invariant):
    here = Stage("cuda", "small", dtype="bfloat16", batch_invariant=invariant)
    assert len(here.serve(VARIANTS[0], "greedy").outputs) == len(here.requests)
