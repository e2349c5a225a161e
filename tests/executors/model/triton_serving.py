"""A real run on the Triton kernels, through the interpreter; run by test_triton."""

import os

import pytest
from triton.runtime.interpreter import GridExecutor

from allocators.paged import Paged
from tests.executors.model.serving_cases import geometry, requests, serve, virtual
from tests.executors.model.test_graphs import Again
from tests.kernels.fake_triton import check_pointers

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_triton.py"

MEMORIES = {
    "paged": lambda: Paged(geometry(tokens=90), block_size=7),
    "virtual": lambda: virtual(200, layout="sliced"),
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
    table = requests(3, seed=1, longest=(20, 4))
    expected = serve(MEMORIES[name](), table, "beam")
    seen = serve(MEMORIES[name](), table, "beam", backend="triton", single=True, capture=capture)
    assert seen.digest == expected.digest
    assert seen.copies
