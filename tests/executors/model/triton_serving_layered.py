"""Layer groups on the Triton kernels, through the interpreter; run by test_triton.

Windows with NaN behind them, sinks, memory of pools and of page-groups, as they are and captured.
"""

import os

import pytest

from tests.executors.model.serving_cases import requests, serve
from tests.executors.model.test_graphs import Again
from tests.executors.model.test_windows import SHAPES, Poison, manager

assert os.environ.get("TRITON_INTERPRET") == "1", "run through test_triton.py"


@pytest.mark.parametrize(
    ("name", "model", "capture"),
    [("paged", "gpt_oss", Again()), ("virtual_sliced", "gemma3", None)],
    ids=["captured", "mapped"],
)
def test_a_run_emits_what_the_compiled_kernel_gives(name, model, capture):
    Poison.behind = 0
    table = requests(2, seed=0, longest=(45, 3))
    given = {"shape": model, "watchers": [Poison], "max_num_batched_tokens": 40}
    expected = serve(manager(name, 400, shape=SHAPES[model]), table, **given)
    assert Poison.behind, "no window was left"
    given |= {"backend": "triton", "single": True, "capture": capture}
    seen = serve(manager(name, 400, shape=SHAPES[model]), table, **given)
    assert seen.digest == expected.digest
