"""The parts of a simulated step: each as far as it is exposed, and all of them the step."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from allocators.base import Demand, Geometry, Grant, Prompt
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.cost import Calibrated, CostSpec, HardwareSpec, ModelShape, Roofline, Work
from harness.cost.software import SoftwareSpec
from harness.engine.plan import Chunk, Plan
from harness.executors.simulated import SimulatedExecutor
from harness.results.runlog import PARTS
from tests.cost.calibrations import SHAPE, made_up
from tests.cost.parts import calibrated_parts, roofline_parts
from tests.places import CONF

POOL = Geometry(640, 8, 256, layers=2, kv_heads=8, head_dim=512, host_tokens=640)
LENGTHS = np.array([50, 60])
ROWS = np.array([1, 2])
#: of page-groups, each of two driver calls in two layers
MAPS = Grant(maps=np.zeros((3, 3), dtype=np.int64))


def conf(group, name, kind):
    return kind(**yaml.safe_load((CONF / group / f"{name}.yaml").read_text()))


def roofline(software="nominal", ranks=1, **cost):
    hardware = replace(conf("hardware", "a100-80gb", HardwareSpec), count=ranks)
    profile = conf("software", software, SoftwareSpec)
    return Roofline(conf("model", "llama-3-8b", ModelShape), hardware, CostSpec(**cost), profile)


def executor(kind=Virtual, software="nominal", ranks=1, **cost):
    knobs = {"page_size": "64KiB"} if kind is Virtual else {"block_size": 8}
    return SimulatedExecutor(roofline(software, ranks, **cost), kind(POOL, **knobs))


def parts_of(priced, plan, lengths=LENGTHS):
    """Return the seconds of a step, and {part: seconds}, which sum to it."""
    seconds = priced.step(plan, lengths)
    parts = dict(zip(PARTS, priced.parts, strict=True))
    assert sum(parts.values()) == pytest.approx(seconds, rel=1e-12)
    return seconds, parts


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("software", ["nominal", "ideal", "vllm-v1"])
def test_what_a_step_computes_is_of_four_parts(software, ranks):
    cost = roofline(software, ranks)
    work = Work(np.array([300, 7]), np.array([0, 90]), 9, 4000, 10, 44 * 4, 16)
    slow = roofline_parts(cost, work)
    priced = cost.step(work)
    assert priced.linear_s == pytest.approx(slow["linear"] + slow["elementwise"])
    assert priced.attention_s == pytest.approx(slow["prefill"] + slow["decode"])
    assert priced.all_reduce_s == pytest.approx(slow["all_reduce"])
    assert (priced.all_reduce_s > 0) == (ranks > 1)
    rest = priced.seconds - priced.linear_s - priced.attention_s - priced.all_reduce_s
    if not cost.software.spec.overlapped:
        assert rest == pytest.approx(slow["tables"] + slow["software"], rel=1e-6)


def test_software_beside_the_gpu_counts_where_it_takes_longer():
    for step_us, exposed in ((1.0, False), (1e5, True)):
        profile = SoftwareSpec(step_us=step_us, sampling_us=0, table_entry_ns=0, overlapped=True)
        cost = roofline()
        cost = Roofline(cost.model, cost.hardware, cost.cost, profile)
        _, parts = parts_of(SimulatedExecutor(cost, Virtual(POOL, page_size="64KiB")),
                            Plan([], rows=ROWS))  # fmt: skip
        gpu_s = parts["linear"] + parts["attention"]
        expected_s = 0.1 - gpu_s if exposed else 0.0
        assert parts["software"] == pytest.approx(expected_s, abs=1e-12)


def test_maps_count_before_a_step_and_beside_it_as_far_as_they_last_longer():
    priced = executor()
    alone_s, parts = parts_of(priced, Plan([], rows=ROWS))
    assert parts["maps"] == parts["copies"] == parts["swaps"] == 0.0
    map_s = priced.map_s(MAPS)
    assert 0 < map_s < alone_s
    for plan, exposed_s in (
        (Plan([], rows=ROWS, before=MAPS), map_s),
        (Plan([], rows=ROWS, beside=MAPS), 0.0),
        (Plan([MAPS], rows=ROWS, before=MAPS, beside=MAPS), 2 * map_s),
    ):
        assert parts_of(priced, plan)[1]["maps"] == pytest.approx(exposed_s)
    many = Grant(maps=np.zeros((3000, 3), dtype=np.int64))
    seconds, parts = parts_of(priced, Plan([], rows=ROWS, beside=many))
    assert parts["maps"] == pytest.approx(priced.map_s(many) - alone_s)
    assert seconds == pytest.approx(priced.map_s(many))


@pytest.mark.parametrize("overlap", ["none", "layers", "step"])
def test_swaps_count_as_far_as_computing_does_not_hide_them(overlap):
    pool = Paged(POOL, block_size=8)
    pool.admit(np.array([0]), Prompt(200), Demand(200, 10))
    swap = pool.suspend(np.array([0]), 0)
    priced = SimulatedExecutor(roofline(swap_overlap=overlap), pool)
    alone_s, alone = parts_of(priced, Plan([], rows=ROWS))
    seconds, parts = parts_of(priced, Plan([swap], rows=ROWS))
    assert parts["swaps"] == pytest.approx(seconds - alone_s)
    assert parts["swaps"] > 0
    assert {**parts, "swaps": 0.0} == pytest.approx(alone, abs=1e-15)


def test_copies_are_all_before_a_step():
    priced = executor(Paged)
    alone_s, _ = parts_of(priced, Plan([], rows=ROWS))
    copies = Grant(copies=np.array([[0, 10, 5], [20, 40, 8]]))
    seconds, parts = parts_of(priced, Plan([copies], rows=ROWS))
    assert parts["copies"] == pytest.approx(seconds - alone_s)
    assert parts["copies"] > 0


@pytest.mark.parametrize("software", ["nominal", "vllm-v1"])
def test_a_window_has_the_parts_of_its_steps(software):
    priced = executor(Paged, software)
    copies = Grant(copies=np.array([[0, 10, 5]]))
    priced.window([copies], LENGTHS, 20)
    window = [np.broadcast_to(part, 20) for part in priced.parts]
    for step in range(20):
        priced.step(Plan([copies] if not step else [], rows=ROWS), LENGTHS + step)
        assert [part[step] for part in window] == list(priced.parts)


def test_the_steps_of_a_draft_are_in_the_parts():
    priced, none = executor(), np.empty(0, dtype=np.int64)
    priced._draft_cost = 0.1
    piece = Chunk(SimpleNamespace(forked=True), 50, 5, last=True)
    alone_s, alone = parts_of(priced, Plan([], chunks=[piece]), none)
    seconds, parts = parts_of(priced, Plan([], chunks=[piece], draft_steps=3), none)
    draft = priced._cost.step(Work(decode_seqs=1, decode_context_tokens=51, sampled=1))
    assert parts["linear"] == pytest.approx(alone["linear"] + 0.3 * draft.linear_s)
    assert seconds == pytest.approx(alone_s + 0.3 * draft.seconds)


def test_a_calibration_tells_its_parts_too():
    cost = Calibrated(SHAPE, made_up())
    work = Work(np.array([10]), np.array([5]), 3, 30, 4, 64, 16)
    slow, priced = calibrated_parts(cost, work), cost.step(work)
    assert priced.linear_s == pytest.approx(slow["linear"] + slow["sample"])
    assert priced.attention_s == pytest.approx(slow["prefill"] + slow["decode"] + slow["store"])
    rest = priced.seconds - priced.linear_s - priced.attention_s
    assert rest == pytest.approx(slow["overhead"] + slow["table"])
