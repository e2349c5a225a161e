"""Torch tensors over memory that torch did not allocate, without a copy.

Memory is handed over as a DLPack structure that names its device.  The other way,
`__cuda_array_interface__`, asks the driver whose memory a pointer is, and of a reserved address at
which nothing is mapped yet the driver knows nothing.
"""

from __future__ import annotations

import ctypes

import torch

CPU, CUDA = 1, 2
UNSIGNED = 1


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("dims", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

#: torch reads a structure once more when the last view of it goes, which may be at any time; so
#: they are kept for good (about 100 bytes each)
_kept: list[tuple[_Managed, ctypes.Array]] = []


def wrap(
    address: int, size_bytes: int, dtype: torch.dtype, device: torch.device | None = None
) -> torch.Tensor:
    """Return a flat tensor over `size_bytes` from `address`; the memory stays the caller's.

    Nothing is read or written, so the addresses need not be mapped yet.
    """
    on_cuda = device is not None and device.type == "cuda"
    kind = _Device(CUDA if on_cuda else CPU, (device.index or 0) if on_cuda else 0)
    shape = (ctypes.c_int64 * 1)(size_bytes)
    tensor = _Tensor(address, kind, 1, _Type(UNSIGNED, 8, 1), shape, None, 0)
    managed = _Managed(tensor, None, None)
    _kept.append((managed, shape))
    capsule = _new_capsule(ctypes.addressof(managed), b"dltensor", None)
    return torch.from_dlpack(capsule).view(dtype)
