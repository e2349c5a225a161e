"""Prints what prefill becomes on GPUs that are not here; the table of docs/kernels.md.

Arguments: tokens of a page, 16 without.
"""

import sys

import torch
import triton

from kernels import prefill
from kernels.triton_prefill import tiles
from tests.kernels.cases import make
from tests.kernels.compiled import SHARED_OF_ALL, compiled

KINDS = [(torch.bfloat16, 64), (torch.bfloat16, 128), (torch.bfloat16, 256), (torch.float32, 128)]
#: new tokens, in a row with a past; window
CALLS = [(300, None), (7, None), (300, 100)]
COLUMNS = ["sm", "type", "dim", "page", "new", "window", "tile", "registers", "spilled", "shared"]
COLUMNS += ["warps", "blocks", "product"]


def becomes(capability, dtype, dim, page, new, window):
    """Return what one call becomes, as `Compiled`; 32/8 heads."""
    case = make([400, 40], [new, 7], heads=(32, 8), dim=dim, dtype=dtype, page=page)
    call = (*case.args, case.queries, case.scale)
    run = lambda: prefill(*call, backend="triton", window=window)  # noqa: E731
    return compiled(run, capability)["prefill_block"]


def main():
    pages = [int(argument) for argument in sys.argv[1:]] or [16]
    calls = [(None, 300, None), *((page, *call) for page in pages for call in CALLS)]
    print(f"Triton {triton.__version__}")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for capability in sorted(SHARED_OF_ALL, reverse=True):
        for dtype, dim in KINDS:
            choice = tiles(dtype, dim, capability)
            for page, new, window in calls:
                if new == 7 and len(choice) == 1:
                    continue
                one = becomes(capability, dtype, dim, page, new, window)
                tile = choice[0 if new == 7 else -1]
                product = "wgmma" if "wgmma.mma_async" in one.ptx else "FMA"
                if "mma.sync" in one.ptx:
                    product = "mma.sync"
                facts = (capability, str(dtype).removeprefix("torch."), dim, page or "contiguous")
                facts += (new, window or "-", f"{tile.queries} x {tile.keys}", one.registers)
                facts += (one.spilled, one.shared, one.warps, one.blocks, product)
                print("| " + " | ".join(map(str, facts)) + " |", flush=True)


if __name__ == "__main__":
    main()
