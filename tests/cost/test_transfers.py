"""Swaps: how many transfers they are, and what goes on while their bytes move."""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Grant, Prompt
from allocators.paged import Paged
from harness.cost import CostSpec, HardwareSpec, ModelShape, Roofline
from harness.engine.plan import Plan
from harness.executors.simulated import SimulatedExecutor
from tests.cost.steps import Pool

LAYERS = 4
MODEL = ModelShape("toy", "llama", LAYERS, 256, 4, 4, 64, 512, 1000, 512)
HARDWARE = HardwareSpec("toy", 1, 100, 1, 16, 16)
GEOMETRY = Geometry(640, 8, 256, layers=LAYERS, kv_heads=4, head_dim=64, host_tokens=640)
POOL = Pool(geometry=GEOMETRY, pages_per_group=1, page_bytes=2**21)
#: device slot, host slot, slots: the second row follows the first on both sides, the third on the
#: device only, the fourth on the host only
SWAPS = np.array([[0, 160, 16], [16, 176, 16], [32, 0, 16], [96, 16, 16]])
LAUNCH_S = 2 * LAYERS * 5e-6


def roofline(**cost):
    return Roofline(MODEL, HARDWARE, CostSpec(**cost))


def sent_s(slots):
    """Seconds in which 80 % of 8 GB/s, one direction of PCIe, move the KV of so many slots."""
    return slots * GEOMETRY.bytes_per_token / (8e9 * 0.8)


@pytest.mark.parametrize(("merge", "transfers"), [("none", 4), ("runs", 3), ("all", 1)])
@pytest.mark.parametrize("field", ["swaps_out", "swaps_in"])
def test_what_is_merged_is_one_transfer_of_the_same_bytes(merge, transfers, field):
    seconds = roofline(swap_merge=merge).grant_s(Grant(**{field: SWAPS}), POOL)
    assert seconds == pytest.approx(transfers * LAUNCH_S + sent_s(64))


@pytest.mark.parametrize("merge", ["none", "runs", "all"])
def test_no_swap_is_no_transfer_and_two_directions_are_never_one(merge):
    roof = roofline(swap_merge=merge)
    assert roof.grant_s(Grant(), POOL) == 0.0
    both = Grant(swaps_out=SWAPS[:1], swaps_in=SWAPS[1:2])
    assert roof.grant_s(both, POOL) == pytest.approx(2 * LAUNCH_S + sent_s(32))


def test_starting_transfers_blocks_whatever_the_bytes_run_beside():
    grant = Grant(swaps_in=SWAPS)
    for overlap in ("layers", "step"):
        assert roofline(swap_overlap=overlap).grant_s(grant, POOL) == pytest.approx(4 * LAUNCH_S)


@pytest.mark.parametrize("compute_s", [0.0, 1e-5, 1.0])
def test_bytes_are_hidden_as_far_as_the_server_hides_them(compute_s):
    grants, sent = [Grant(swaps_in=SWAPS), Grant(swaps_out=SWAPS)], sent_s(128)
    expected = {
        "none": compute_s,
        "layers": max(compute_s, sent) + min(compute_s, sent) / LAYERS,
        "step": max(compute_s, sent),
    }
    for overlap, seconds in expected.items():
        found = roofline(swap_overlap=overlap).overlapped_s(compute_s, grants, POOL)
        assert found == pytest.approx(seconds)


def preempted(**cost):
    """Return (a paged pool, an executor over it, the grant that swaps 200 tokens out)."""
    pool = Paged(GEOMETRY, block_size=8)
    pool.admit(np.array([0]), Prompt(200), Demand(200, 10))
    executor = SimulatedExecutor(roofline(**cost), pool)
    return executor, pool.suspend(np.array([0]), 0)


@pytest.mark.parametrize("way", ["step", "window"])
def test_a_step_pays_each_byte_once(way):
    lengths, seconds = np.array([50, 60]), {}
    for overlap in ("none", "layers", "step"):
        executor, grant = preempted(swap_overlap=overlap)
        if way == "step":
            seconds[overlap] = executor.step(Plan([grant], rows=np.array([1, 2])), lengths)
        else:
            seconds[overlap] = float(executor.window([grant], lengths, 2)[0])
    executor, _ = preempted()
    alone = executor.step(Plan([], rows=np.array([1, 2])), lengths)
    launch_s, sent = 25 * LAUNCH_S, sent_s(200)
    assert seconds["none"] == pytest.approx(alone + launch_s + sent)
    assert seconds["step"] == pytest.approx(launch_s + max(alone, sent))
    assert seconds["layers"] == pytest.approx(seconds["step"] + min(alone, sent) / LAYERS)


def test_a_fresh_pool_is_swapped_in_one_run():
    executor, grant = preempted(swap_merge="runs")
    assert len(grant.swaps_out) == 25
    assert executor.step(Plan([grant]), np.array([], dtype=np.int64)) == pytest.approx(
        LAUNCH_S + sent_s(200)
    )
