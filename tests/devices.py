"""The kinds of device on which tests run that are meant for each, and in what size.

A test's id begins with its place: `cpu-small` runs everywhere; where there is a GPU, `cuda-small`
and `cuda-full`, marked gpu, run too.
"""

import pytest
import torch

SIZES = {"cpu": ("small",), "cuda": ("small", "full")}
HERE = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def each_place(values):
    """Return parameters (device, size, *value) of each place here for `values(device, size)`."""
    return [
        pytest.param(
            *(device, size, *value),
            id="-".join(map(str, (device, size, *value))),
            marks=[pytest.mark.gpu] if device == "cuda" else [],
        )
        for device in HERE
        for size in SIZES[device]
        for value in values(device, size)
    ]
