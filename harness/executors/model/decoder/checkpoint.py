"""Weights from a local directory of safetensors files.

One file `model.safetensors`, or several with `model.safetensors.index.json`, whose `weight_map`
says which holds what.  Files are mapped, and tensors read one at a time.  Pickled weights (`.bin`,
`.pt`) are never opened: unpickling runs whatever code the file holds.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from harness.executors.model.decoder.errors import DecoderError
from harness.executors.model.decoder.weights import Kind

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Checkpoint:
    """A `Source` of weights; use as a context manager, which closes the files."""

    def __init__(self, directory: Path) -> None:
        """Open the files.  Raises `DecoderError` if there are none or one cannot be read."""
        self._directory = directory
        self._stack = ExitStack()
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        paths = _weight_files(directory)
        try:
            for path in paths:
                handle = self._stack.enter_context(safe_open(path, framework="pt", device="cpu"))
                self._open[path] = handle
                self._file_of.update(dict.fromkeys(handle.keys(), path))
        except (SafetensorError, OSError) as error:
            self._stack.close()
            raise DecoderError(f"{path}: not a readable safetensors file ({error})") from error

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, name: str, shape: tuple[int, ...], kind: Kind) -> torch.Tensor:
        """Return the tensor `name`.  Raises `DecoderError` if it is missing or does not fit."""
        path = self._file_of.get(name)
        if path is None:
            raise DecoderError(f"{self._directory}: no tensor {name}, of shape {list(shape)}")
        try:
            tensor = self._open[path].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise DecoderError(f"{path}: cannot read {name} ({error})") from error
        if tuple(tensor.shape) != shape:
            raise DecoderError(
                f"{path}: {name} has shape {list(tensor.shape)}; the model needs {list(shape)}"
            )
        if tensor.dtype not in DTYPES:
            raise DecoderError(
                f"{path}: {name} is {tensor.dtype}; allowed: float32, float16, bfloat16"
            )
        return tensor


def _weight_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise DecoderError(f"{directory}: no such directory")
    if (directory / INDEX).is_file():
        return _sharded(directory)
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    pickled = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise DecoderError(
            f"{directory / pickled[0]}: pickled weights are not read, since a pickle can run any "
            f"code; convert them to {SINGLE}"
        )
    raise DecoderError(f"{directory}: holds neither {SINGLE} nor {INDEX}")


def _sharded(directory: Path) -> list[Path]:
    path = directory / INDEX
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DecoderError(f"{path}: not an index with a weight_map of file names") from error
    if not names:
        raise DecoderError(f"{path}: not an index with a weight_map of file names, it is empty")
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (directory / name).is_file():
            raise DecoderError(f"{path}: names {name!r}, which is no file in the same directory")
    return [directory / name for name in names]
