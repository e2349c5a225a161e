"""What Triton and ptxas make of our kernels for a GPU that is not here.

A kernel is compiled with the very arguments and specialisations with which a call would launch it:
`fake_triton` notes them.  Run by itself this prints the figures of docs/kernels.md.
"""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402

from tests.kernels.fake_triton import launches  # noqa: E402

#: shared memory of a multiprocessor in bytes, by compute capability, and what the system takes of
#: it for each block (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability")
SHARED_OF_ALL, SHARED_OF_BLOCK = {80: 164 << 10, 90: 228 << 10}, 1 << 10
#: what one block may have of it
MOST_SHARED = {of: size - SHARED_OF_BLOCK for of, size in SHARED_OF_ALL.items()}
#: registers of a multiprocessor, and the step in which a thread gets them
REGISTERS, REGISTER_STEP = 1 << 16, 8


@dataclass(frozen=True)
class Compiled:
    """One kernel for one GPU.

    `registers`: a thread's; `spilled`: bytes of a thread's stack; `shared`: bytes of a block.
    """

    name: str
    capability: int
    registers: int
    spilled: int
    shared: int
    warps: int
    ttgir: str
    ptx: str
    cubin: bytes

    @cached_property
    def sass(self):
        """The machine code as nvdisasm shows it."""
        return with_file(self.cubin, lambda path: run_tool("nvdisasm", "-c", path))

    @property
    def loop(self):
        """Machine instructions of the longest loop that copies from global to shared memory."""
        instructions, labels, loops = [], {}, []
        for line in self.sass.splitlines():
            if label := re.match(r"(\.L_x_\d+):", line):
                labels[label[1]] = len(instructions)
            elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+([^;]*);", line):
                instructions.append(found[1])
                back = re.search(r"\bBRA\b.*?(\.L_x_\d+)", found[1])
                if back and back[1] in labels:
                    loops.append(instructions[labels[back[1]] :])
        return max((body for body in loops if any("LDGSTS" in x for x in body)), key=len)

    @property
    def given_registers(self):
        """Registers that a thread is given, which are handed out by eights."""
        return -(-self.registers // REGISTER_STEP) * REGISTER_STEP

    @property
    def blocks(self):
        """Blocks that fit on a multiprocessor at once, by registers and by shared memory."""
        by_registers = REGISTERS // (self.given_registers * 32 * self.warps)
        by_shared = SHARED_OF_ALL[self.capability] // (self.shared + SHARED_OF_BLOCK)
        return min(by_registers, by_shared)


def compiled(call, capability=90):
    """Return by name what the kernels that `call` launches are on a GPU, as `Compiled`.

    Skips the test that asks where there is nothing to compile with.
    """
    for tool in ("ptxas", "cuobjdump", "nvdisasm"):
        tool_path(tool)
    target = GPUTarget("cuda", capability, 32)
    with launches(target=target) as seen:
        call()
    return {name: build(name, *made, target) for name, made in seen.sources.items()}


_built = {}


def build(name, source, options, target):
    """Compile once a session what `fake_triton` noted."""
    key = (name, source.hash(), str(sorted(options.items())), target.arch)
    if key not in _built:
        made = triton.compile(source, target=target, options=options)
        cubin = made.asm["cubin"]
        usage = with_file(cubin, lambda path: run_tool("cuobjdump", "-res-usage", path))
        found = {key: int(n) for key, n in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
        _built[key] = Compiled(
            name, target.arch, found["REG"], found["STACK"] + found["LOCAL"],
            made.metadata.shared, made.metadata.num_warps,
            made.asm["ttgir"], made.asm["ptx"], cubin,
        )  # fmt: skip
    return _built[key]


def tool_path(name):
    """A tool of CUDA that comes with Triton's wheel, or stands in the path; skips without one."""
    beside = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is neither in Triton's wheel nor in the path")
    return path


def run_tool(name, *arguments):
    command = [tool_path(name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def with_file(contents, use):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(contents)
        file.flush()
        return use(file.name)


def main():
    """Print what decode becomes, by GPU, type, head size and layout."""
    from kernels import decode
    from tests.kernels.cases import make

    layouts = {"contiguous": {}, "1": {"page": 1}, "16": {"page": 16}, "256": {"page": 256}}
    layouts["204 padded"] = {"padded": 204}
    kinds = [(torch.bfloat16, 64), (torch.bfloat16, 128), (torch.bfloat16, 256)]
    kinds += [(torch.float32, 128)]
    print(f"Triton {triton.__version__}; instructions of a warp for each block of keys")
    columns = ["sm", "type", "dim", "page", "registers", "spilled", "shared", "warps", "blocks"]
    columns.append("instructions")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for capability in SHARED_OF_ALL:
        for dtype, dim in kinds:
            for name, layout in layouts.items():
                case = make([300, 1000], heads=(32, 8), dim=dim, dtype=dtype, **layout)
                call = (*case.args, case.scale)
                found = compiled(lambda call=call: decode(*call, backend="triton"), capability)
                one = found["decode_split"]
                facts = (capability, str(dtype).removeprefix("torch."), dim, name, one.registers)
                facts += (one.spilled, one.shared, one.warps, one.blocks, len(one.loop))
                print("| " + " | ".join(map(str, facts)) + " |")


if __name__ == "__main__":
    main()
