"""Triton kernels: correct through the interpreter, and compiled for GPUs that are not here."""

import pytest

from tests.kernels.interpreted import run_interpreted

triton = pytest.importorskip("triton")


def test_kernels_agree_with_float64_in_the_interpreter():
    said = run_interpreted("tests/kernels/triton_interpreted.py")
    assert " passed" in said
    assert "skipped" not in said


DECODE = {"GROUP": 4, "GROUP_PAD": 16, "SPLIT": 256, "WIDEN": False}
CASES = {
    "decode_split": DECODE
    | {"DIM": 80, "DIM_PAD": 128, "PAGE": 7, "CONTIGUOUS": False, "BLOCK": 64},
    "decode_reduce": {"DIM": 80, "DIM_PAD": 128, "SPLIT": 256},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "capability"), [*((name, 90) for name in CASES), ("decode_split", 80)]
)
def test_kernels_compile_to_machine_code_without_a_gpu(name, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tests.kernels.fake_triton import KERNELS

    kernel = next(kernel for kernel in KERNELS if kernel.__name__ == name)
    constants = CASES[name]
    pointers = dict.fromkeys(("q", "k", "v", "out", "source", "target"), "*bf16")
    pointers |= dict.fromkeys(("table", "lengths", "starts"), "*i32")
    wide = ("_start", "_row", "_head", "_page", "_token", "_tokens")
    pointers |= dict.fromkeys(("offset", "source_slots", "target_slots"), "*i64")
    pointers |= dict.fromkeys(("peaks", "totals", "parts"), "*fp32") | {"scale": "fp32"}
    pointers |= {arg: "i64" for arg in kernel.arg_names if arg.endswith(wide)}
    signature = {
        arg: "constexpr" if arg in constants else pointers.get(arg, "i32")
        for arg in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=constants)
    options = {"num_stages": 2}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert compiled.asm["cubin"]
    # What the smallest of the GPUs in question gives to one block.
    assert compiled.metadata.shared <= 99 << 10
