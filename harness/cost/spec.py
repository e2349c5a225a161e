"""Every constant of the cost model, each with its source.

"Fitted" means: chosen on a coarse grid so that the median error over the public A100 and H100
tables is smallest, one value for both GPUs.  `python -m tests.cost.validate DATA_DIR` prints how
far the predictions lie from those tables; `docs/cost.md` shows its output.  "Assumed" means that no
public measurement was at hand: treat it as a knob.  The four constants for which one value would
not do for both GPUs are in `HardwareSpec`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from harness.cost.shapes import CostError

#: the page size of unmodified drivers; their times hold for all sizes that are not listed
LARGE_PAGE = "2MiB"
#: the page sizes that vAttention's modified driver adds
SMALL_PAGES = ("64KiB", "128KiB", "256KiB")
PAGE_UNITS = {"KiB": 2**10, "MiB": 2**20}

#: Published (arXiv 2405.04437, as transcribed elsewhere): Map 2 + SetAccess 38 us, Unmap 34 us.
#: A second measurement, of ConServe, has 1.9 + 36.8 and 34.3.
LARGE_MAP_US, LARGE_UNMAP_US = 40.0, 34.0
#: Derived, for no copy of published latencies could be read: one ioctl puts 1, 2 or 4 page
#: table entries into one push and does not wait for the GPU, and there is no SetAccess.  So it
#: takes at least what the cheapest call above takes, Map alone, and at most what it replaces.  The
#: value is the geometric mean of the two; docs/virtual.md has the reasoning and runs both ends.
SMALL_MAP_US_RANGE = (2.0, LARGE_MAP_US)
SMALL_MAP_US = 9.0
#: In vAttention's code an unmap of a small page calls no driver: the page goes back to a list.
SMALL_UNMAP_US = 0.0
#: The physical memory of a page, made (Create) and given back (Release).  Published like the above.
LARGE_CREATE_US, LARGE_RELEASE_US = 29.0, 23.0
#: Derived: one ioctl that takes a part of a chunk from a list, or gives it back, without a word to
#: the GPU.  So no less than the cheapest published call, AddressFree at 1 us, and no more than the
#: calls that it replaces; the values are near the geometric means (docs/virtual.md).
SMALL_CREATE_US_RANGE, SMALL_RELEASE_US_RANGE = (1.0, LARGE_CREATE_US), (1.0, LARGE_RELEASE_US)
SMALL_CREATE_US = SMALL_RELEASE_US = 5.0

#: tokens a block in the tables that attention's constants were fitted to: fixed in the program that
#: measured them, `collector/vllm/collect_attn.py` of aiconfigurator (commit 15cb360)
MEASURED_BLOCK_TOKENS = 64
#: what a server makes one transfer of: each block; blocks that follow each other on the device and
#: on the host; all that a grant swaps
SWAP_MERGES = ("none", "runs", "all")
#: what the bytes of swaps run beside: nothing; the step, layer by layer; the step as a whole
SWAP_OVERLAPS = ("none", "layers", "step")


def _by_size(small_us: float, large_us: float) -> Callable[[], dict[str, float]]:
    return lambda: dict.fromkeys(SMALL_PAGES, small_us) | {LARGE_PAGE: large_us}


@dataclass
class CostSpec:
    """The constants of `Roofline`.  Efficiencies are shares of the vendor's peak, in (0, 1].

    With `name: calibrated` none of them counts: everything is read from `file`.
    """

    name: str = "roofline"
    #: calibrated only: what `python -m harness.measure.calibrate` wrote
    file: str | None = None

    # -- linear layers: (compute^p + memory^p)^(1/p) -------------------------------------------
    #: fitted: aiconfigurator gemm tables, 2048 <= n, k < 65536
    gemm_efficiency: float = 0.85
    #: fitted, same tables: reading weights at small batches
    weight_bandwidth_efficiency: float = 0.70
    #: fitted, same tables: 1 would add the two times, infinity would take the larger
    roofline_exponent: float = 2.0
    #: fitted: Vidur mlp.csv, norms, residual adds, rotary and activation at over 1000 tokens
    elementwise_bandwidth_efficiency: float = 0.55
    #: fitted, same tables: the least time of one small kernel, six of them a layer
    elementwise_floor_us: float = 4.5

    # -- attention, one call a layer -----------------------------------------------------------
    # decode's two constants differ by GPU, so they are in HardwareSpec
    #: fitted: aiconfigurator context tables, head_dim 128, at most 65536 tokens
    prefill_efficiency: float = 0.60
    #: fitted, same tables: a short piece pays for whole tiles and an idle tail
    prefill_tile_tokens: int = 512
    #: fitted, same tables: launch and fill, added to the work
    prefill_floor_us: float = 12.0
    #: fitted, same tables: reading Q, K, V and writing the output, when that takes longer
    prefill_bandwidth_efficiency: float = 0.30

    # -- block tables: what they cost by the tokens of a block ----------------------------------
    #: fitted: a block costs decode as much as this many tokens more; FlashAttention-4 at 1, 8 and
    #: 32 tokens a block (results/published/block_size.csv; checks in docs/cost.md)
    block_decode_tokens: float = 0.90
    #: fitted likewise: prompts through AITER and FlyDSL at 1 and 16 tokens a block
    block_prefill_tokens: float = 0.15
    #: assumed: one asynchronous host-to-device copy
    table_latency_us: float = 10.0
    #: assumed: share of one PCIe direction that a pinned copy reaches
    pcie_efficiency: float = 0.8

    # -- operations a grant asks for -----------------------------------------------------------
    #: mapping one driver page, by its size: published for 2MiB, derived for the small ones (above);
    #: a size that is not listed takes 2MiB's
    map_us: dict[str, float] = field(default_factory=_by_size(SMALL_MAP_US, LARGE_MAP_US))
    #: unmapping it, likewise: published for 2MiB, no call at all for the small ones
    unmap_us: dict[str, float] = field(default_factory=_by_size(SMALL_UNMAP_US, LARGE_UNMAP_US))
    #: making the physical memory of one, where a chunk of the pool gets pages of another size:
    #: published for 2MiB, derived for the small ones (above)
    create_us: dict[str, float] = field(default_factory=_by_size(SMALL_CREATE_US, LARGE_CREATE_US))
    #: giving it back, likewise
    release_us: dict[str, float] = field(
        default_factory=_by_size(SMALL_RELEASE_US, LARGE_RELEASE_US)
    )
    #: assumed equal to what elementwise kernels reach; a copy reads and writes
    copy_bandwidth_efficiency: float = 0.60
    #: the host's time to start one copy between device and host; a transfer needs two a layer,
    #: which is what makes small blocks slow (PagedAttention, Fig. 19).  Measured: 2.3 (H20) to 5.5
    #: (MI300X), 0.6 in a batch of copies (results/published/transfers.csv)
    swap_transfer_us: float = 5.0
    #: none, runs or all (`SWAP_MERGES`); PagedAttention's system copies block by block
    swap_merge: str = "none"
    #: none, layers or step (`SWAP_OVERLAPS`); docs/cost.md says which server does which
    swap_overlap: str = "none"
    #: assumed: one batched copy kernel for each layer's keys and values, launched together
    copy_launch_us: float = 20.0


def page_bytes_of(size: str) -> int:
    """Return the bytes of a page size, a power of two written as 64KiB or 2MiB.

    Raises `CostError` for any other text.
    """
    number, unit = size[:-3], size[-3:]
    if unit in PAGE_UNITS and number.isdecimal() and int(number).bit_count() == 1:
        return int(number) * PAGE_UNITS[unit]
    raise CostError(f"page size {size!r} is not a power of two, written as 64KiB or 2MiB")
