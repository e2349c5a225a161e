"""The executor on the Triton kernels, where there is no GPU through their interpreter."""

import pytest

from tests.kernels.interpreted import run_interpreted

pytest.importorskip("triton")


def test_serving_on_triton_in_the_interpreter():
    assert "2 passed" in run_interpreted("tests/executors/model/triton_serving.py")


@pytest.mark.further
def test_serving_layer_groups_on_triton_in_the_interpreter():
    assert "2 passed" in run_interpreted("tests/executors/model/triton_serving_layered.py")
