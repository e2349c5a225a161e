"""A real run on the Triton kernels, through the interpreter; run by test_triton."""

import os
from dataclasses import replace

import pytest
import torch
from triton.runtime.interpreter import GridExecutor

from allocators.paged import Paged
from harness.executors.model.decoder import build_decoder
from tests.executors.model.serving_cases import LLAMA, geometry, requests, serve, virtual
from tests.executors.model.test_graphs import Again
from tests.kernels.fake_triton import check_pointers

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_triton.py"

#: half as many heads, of which the interpreter takes each by itself
SHAPE = replace(LLAMA, heads=4, kv_heads=2)
MEMORIES = {
    "paged": lambda: Paged(geometry(SHAPE, tokens=90), block_size=7),
    "virtual": lambda: virtual(200, shape=SHAPE, layout="sliced"),
}


@pytest.fixture(autouse=True)
def _pointers_are_asked_about(monkeypatch):
    """The interpreter takes any address; a GPU's launcher does not."""
    launch = GridExecutor.__call__

    def checked(self, *args, **options):
        check_pointers(args)
        launch(self, *args, **options)

    monkeypatch.setattr(GridExecutor, "__call__", checked)


@pytest.mark.parametrize(
    ("name", "capture"), [("virtual", None), ("paged", Again())], ids=["plain", "captured"]
)
def test_a_run_emits_what_the_compiled_kernel_gives(name, capture):
    table = requests(2, seed=6, longest=(20, 4))  # prompts of 9 and 11 tokens, outputs of 3 and 2
    decoder = build_decoder(
        SHAPE, device="cpu", dtype=torch.float32, seed=7, weights=None, batch_invariant=True
    )
    expected = serve(MEMORIES[name](), table, "beam", decoder=decoder)
    seen = serve(
        MEMORIES[name](), table, "beam", decoder=decoder, backend="triton", single=True,
        capture=capture,
    )  # fmt: skip
    assert len(set(seen.outputs[0].ravel().tolist())) > 1
    assert seen.digest == expected.digest
    assert seen.copies
