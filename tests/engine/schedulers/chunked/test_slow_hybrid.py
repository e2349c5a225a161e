"""Layer groups step by step against vLLM's rules in plain Python, over random models and pools."""

import numpy as np
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from allocators.base import Geometry
from allocators.layers import LayerGroup
from allocators.paged import Paged
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.setup import Setup
from tests.engine.cases import Metronome
from tests.engine.schedulers.chunked.cases import COLUMNS
from tests.engine.schedulers.chunked.slow_hybrid import Kind, serve
from workloads.requests import RequestTable

MAX_LEN = 96


@st.composite
def models(draw, states):
    """Return (block size, [(kind, layers, window, how many times as many tokens a block)])."""
    block = draw(st.sampled_from([1, 2, 3, 4, 8]))
    others = ["sliding", "sliding", "chunked"] + (["state"] if states else [])
    layers = [("full", 1, 0, 1)]
    for name in draw(st.lists(st.sampled_from(others), min_size=1, max_size=2)):
        window = draw(st.integers(1, 24)) if name != "state" else 0
        if name == "chunked":
            window = block * draw(st.integers(1, 6))
        # A chunked kind is compared with blocks of one size, and one the hit of which is honest.
        times = draw(st.sampled_from([1, 1, 2])) if name == "sliding" else 1
        layers.append((name, draw(st.integers(1, 3)), window, times))
    if any(name == "chunked" for name, *_ in layers):
        layers = [(name, count, window, 1) for name, count, window, _ in layers]
    seen = {(name, window, times) for name, _, window, times in layers}
    return block, layers if len(seen) == len(layers) else layers[:2]


@st.composite
def cases(draw):
    caching = draw(st.booleans())
    block, layers = draw(models(states=not caching))
    kinds = [
        Kind(name, 1 if name == "state" else block * times, window)
        for name, count, window, times in layers
        for _ in range(count)
    ]
    seed, number = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 16))
    requests = requests_of(seed, number)
    longest = max(len(prompt) + len(later) for prompt, later in requests)
    alone = sum(kind.blocks(longest) for kind in kinds)
    blocks = alone + draw(st.integers(0, 2 * alone))
    budget, seqs = draw(st.integers(2, 64)), draw(st.integers(1, 8))
    every = block * max(times for *_, times in layers)
    retention = draw(st.sampled_from([None, None, 0, every, 3 * every]))
    return block, layers, kinds, seed, number, blocks, budget, seqs, caching, retention


def known(block, layers, *rest, retention=None):
    """Return a case as `cases` draws it."""
    kinds = [
        Kind(name, block * times, window)
        for name, count, window, times in layers
        for _ in range(count)
    ]
    return block, layers, kinds, *rest, retention


#: what is preempted after a refusal would go before what lies behind the refused, if it stayed so
AFTER_A_REFUSAL = known(
    2, [("full", 1, 0, 1), ("sliding", 1, 23, 1)], 104460427, 13, 87, 8, 6, True
)
#: and what lies behind it is another's, too
SHARED_AFTER_A_REFUSAL = known(
    1,
    [("chunked", 3, 7, 1), ("full", 2, 0, 1), ("sliding", 1, 33, 1)],
    15227749,
    13,
    531,
    30,
    8,
    True,
)
#: what lies behind it is free only with what is preempted after that
WITH_A_REFUSAL = known(
    3,
    [("full", 1, 0, 1), ("sliding", 1, 16, 2)],
    1120702309,
    12,
    78,
    29,
    7,
    True,
    retention=0,
)


def requests_of(seed, number):
    """Return [(prompt, later tokens)]; many begin alike, and what follows is each one's own."""
    rng = np.random.default_rng(seed)
    shared = [rng.integers(0, 3, 40).tolist() for _ in range(2)]
    requests = []
    for index in range(number):
        length, output = int(rng.integers(1, 60)), int(rng.integers(1, 30))
        begin = shared[rng.integers(2)][: rng.integers(0, 41)] if rng.random() < 0.7 else []
        own = rng.integers(0, 2, max(length - len(begin), 1)).tolist()
        requests.append((begin + own, list(range(100 * index + 100, 100 * index + 100 + output))))
    return requests


def timeline(block, layers, requests, blocks, budget, seqs, caching, retention, skip):
    layer_bytes = 4
    groups = tuple(
        LayerGroup(
            name,
            count,
            count * layer_bytes * (2 * block if name == "state" else 2 // times),
            window,
        )
        for name, count, window, times in layers
    )
    geometry = Geometry(
        capacity_tokens=blocks * block,
        max_seqs=seqs,
        max_len=MAX_LEN,
        layer_groups=groups,
        pool_bytes=blocks * block * 2 * layer_bytes,
        step_tokens=budget,
    )
    allocator = Paged.of(
        geometry,
        block_size=block,
        groups="hybrid",
        prefix_index="hash" if caching else "none",
        retention_tokens=retention,
    )
    table = RequestTable(
        arrival_s=np.zeros(len(requests)),
        prompt_tokens=np.array([len(prompt) for prompt, _ in requests]),
        output_tokens=np.array([len(later) for _, later in requests]),
        token_ids=[np.array(prompt + later, dtype=np.int64) for prompt, later in requests],
    )
    spec = EngineSpec(
        policy="chunked", max_num_seqs=seqs, max_num_batched_tokens=budget, skip_ahead=skip
    )
    engine = Engine(Setup(allocator, table, SamplingSpec(), spec, Metronome(), seed=0))
    log = engine.run("paged")
    allocator.check()
    assert allocator.balance()[0] == 0
    return {theirs: log.timeline[ours].tolist() for theirs, ours in COLUMNS.items()}


@settings(max_examples=60, deadline=None)
@given(cases())
@example(AFTER_A_REFUSAL)
@example(SHARED_AFTER_A_REFUSAL)
@example(WITH_A_REFUSAL)
def test_every_step_is_that_of_the_rules(case):
    block, layers, kinds, seed, number, blocks, budget, seqs, caching, retention = case
    requests = requests_of(seed, number)
    rows = serve(kinds, blocks, budget, seqs, MAX_LEN, requests, caching, retention)
    theirs = {column: [row[column] for row in rows] for column in COLUMNS}
    for skip in (False, True):
        ours = timeline(block, layers, requests, blocks, budget, seqs, caching, retention, skip)
        assert ours == theirs, f"skip_ahead={skip}"
    event("preempted" if any(theirs["preemptions"]) else "never preempted")
    event("hit" if any(theirs["hit_tokens"]) else "nothing hit")
