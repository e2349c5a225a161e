"""`engine=chunked` against the recorded steps of vLLM 0.33.0's own scheduler, one by one.

Models of one kind of layers, and of several: their pages are equally large, from one pool.
"""

import gzip
import json

import numpy as np
import pytest

from allocators.base import Geometry
from allocators.layers import LayerGroup
from allocators.paged import Paged
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from tests.engine.cases import Metronome
from tests.engine.schedulers.chunked.cases import COLUMNS
from tests.places import SHARED_DATA
from workloads.requests import RequestTable

RECORDED = SHARED_DATA / "vllm_hybrid"
#: 300 requests at once, half of them with one of 12 shared beginnings
GEOMETRY = Geometry(capacity_tokens=2048 * 16, max_seqs=256, max_len=32768)
#: bytes of a layer's slot; any number gives the same steps
LAYER_BYTES = 256
#: layer groups, and how many blocks of 16 tokens of one of their tables there are
LAYERS = {
    "full": ([("full", 4, 0)], 2048),
    "full_sw128": ([("full", 4, 0), ("sliding", 4, 128)], 2048),
    "full_5sw1024": ([("full", 2, 0), ("sliding", 10, 1024)], 6144),
    "full_3mamba": ([("full", 2, 0), ("state", 6, 0)], 2048),
}
ENGINE = {"policy": "chunked", "max_num_seqs": 256, "max_num_batched_tokens": 8192}

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not RECORDED.is_dir(), reason=f"no steps of vLLM under {RECORDED} (set KV_HARNESS_SHARED)"
    ),
]


def read(name):
    with gzip.open(RECORDED / name, "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def requests():
    rows = read("requests.jsonl.gz")
    prompts = [np.array(row["prompt_token_ids"], dtype=np.int64) for row in rows]
    return RequestTable(
        arrival_s=np.zeros(len(rows)),
        prompt_tokens=np.array([len(prompt) for prompt in prompts]),
        output_tokens=np.array([row["output_len"] for row in rows]),
        token_ids=prompts,
    )


def same(ours, theirs, steps):
    """Require so many steps on both sides, each the same."""
    assert len(theirs["tokens"]) == len(ours["tokens"]) == steps
    differing = {
        column: np.flatnonzero(ours[column] != theirs[column]).tolist() for column in COLUMNS
    }
    assert not any(differing.values()), {column: at[:9] for column, at in differing.items()}


def layered(name):
    """Return the pool of a file of several layer groups; a state is as large as a block."""
    kinds, blocks = LAYERS[name]
    groups = tuple(
        LayerGroup(kind, layers, layers * LAYER_BYTES * (16 if kind == "state" else 1), window)
        for kind, layers, window in kinds
    )
    layers = min(group.layers for group in groups)
    return Geometry(
        capacity_tokens=blocks * 16 // len(groups),
        max_seqs=256,
        max_len=32768,
        layer_groups=groups,
        pool_bytes=blocks * 16 * layers * LAYER_BYTES,
        step_tokens=ENGINE["max_num_batched_tokens"],
    )


def timeline(requests, skip, geometry=GEOMETRY, **knobs):
    """Serve the requests; return {vLLM's column: values}, [steps]."""
    allocator = Paged.of(geometry, block_size=16, **knobs)
    spec = EngineSpec(skip_ahead=skip, **ENGINE)
    engine = Engine(Setup(allocator, requests, SamplingSpec(), spec, Metronome(), seed=0))
    log = engine.run("paged")
    return {theirs: log.timeline[ours] for theirs, ours in COLUMNS.items()}


def recorded(name):
    rows = read(name)
    return {column: np.array([row[column] for row in rows]) for column in COLUMNS}


#: in each run, one of both is taken step by step and the other skipping ahead, else with `further`
UNIFORM = [
    pytest.param(
        name, prefix_index, steps, skip,
        id=f"{'with' if prefix_index == 'hash' else 'without'} caching-"
        f"{'skipping ahead' if skip else 'each step'}",
        marks=[pytest.mark.further] if skip == (prefix_index == "hash") else [],
    )
    for name, prefix_index, steps in (
        ("full_off.jsonl.gz", "none", 6088), ("full_on.jsonl.gz", "hash", 5548),
    )
    for skip in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("name", "prefix_index", "steps", "skip"), UNIFORM)
def test_every_step_is_that_of_vllm(requests, name, prefix_index, steps, skip):
    theirs = recorded(name)
    ours = timeline(requests, skip, prefix_index=prefix_index)
    same(ours, theirs, steps)


SEVERAL = {
    ("full", "none"): 6088,
    ("full_sw128", "none"): 7278,
    ("full_5sw1024", "none"): 6956,
    ("full_3mamba", "none"): 6185,
    ("full", "hash"): 5548,
    ("full_sw128", "hash"): 7043,
    ("full_5sw1024", "hash"): 6869,
}
#: these skip ahead in each run and the others do not; one layer group alone is a uniform model
#: (tests/allocators/layered/test_one_group.py), so that it is with `further`, as is all else
SKIPPING = [("full_3mamba", "none"), ("full_5sw1024", "hash")]
#: windows without caching and without skipping ahead are those of `full_sw128` in each run
MORE = [("full", "none"), ("full", "hash"), ("full_5sw1024", "none")]


@pytest.mark.parametrize(
    ("name", "prefix_index", "steps", "skip"),
    [
        pytest.param(
            *kind, steps, skip,
            id=f"{'-'.join(kind)}-{'skipping ahead' if skip else 'each step'}",
            marks=[pytest.mark.further] if kind in MORE or skip != (kind in SKIPPING) else [],
        )
        for kind, steps in SEVERAL.items()
        for skip in (False, True)
    ],
)  # fmt: skip
def test_every_step_of_several_layer_groups_is_that_of_vllm(
    requests, name, prefix_index, steps, skip
):
    theirs = recorded(f"{name}_{'off' if prefix_index == 'none' else 'on'}.jsonl.gz")
    ours = timeline(requests, skip, layered(name), prefix_index=prefix_index)
    same(ours, theirs, steps)


def test_the_queue_by_age_hits_a_block_less_now_and_then(requests):
    """What was freed without a key waits behind older cached blocks, which go before it.

    22 of the 24 steps are returns after a preemption, each one block short.
    """
    theirs = recorded("full_on.jsonl.gz")
    ours = timeline(requests, skip=True, prefix_index="hash", free_order="by_age")
    short = theirs["hit_tokens"] - ours["hit_tokens"]
    assert np.count_nonzero(short) == 24
    assert (short >= 0).all()
    assert np.count_nonzero(short == 16) == 22
