"""Outputs are the same tokens whatever the allocator, in float32, also under pressure."""

from functools import cache

import pytest

from tests.executors.model.by_device import Stage, variants
from tests.executors.model.serving_cases import (
    OPT,
    ROOMY_TOKENS,
    TIGHT_TOKENS,
    contiguous,
    paged,
    requests,
    serve,
    virtual,
)

MODES = ("greedy", "parallel", "beam")
ROOMY = {
    **{f"contiguous_{r}": lambda r=r: contiguous(ROOMY_TOKENS, reservation=r)
       for r in ("max", "pow2", "grow")},
    **{f"paged_{b}": lambda b=b: paged(ROOMY_TOKENS, block_size=b) for b in (1, 7, 32, 128, 512)},
    "paged_radix": lambda: paged(ROOMY_TOKENS, block_size=4, prefix_index="radix"),
    "virtual": lambda: virtual(ROOMY_TOKENS),
    "virtual_128": lambda: virtual(ROOMY_TOKENS, page_size="128KiB", prefix_index="hash"),
    "virtual_256_copy": lambda: virtual(ROOMY_TOKENS, page_size="256KiB", sharing="copy"),
}  # fmt: skip
TIGHT = {
    "contiguous_oracle": lambda host: contiguous(host=host, reservation="oracle"),
    "contiguous_grow": lambda host: contiguous(
        host=host, reservation="grow", placement="best_fit"),
    "paged_1": lambda host: paged(150, host, block_size=1),
    "paged_16": lambda host: paged(host=host, block_size=16),
    "paged_16_hash": lambda host: paged(host=host, block_size=16, prefix_index="hash"),
    "paged_7_radix": lambda host: paged(host=host, block_size=7, prefix_index="radix"),
    "virtual_sliced": lambda host: virtual(host=host, layout="sliced"),
    "virtual_hash": lambda host: virtual(
        TIGHT_TOKENS + 64, host, layout="sliced", prefix_index="hash"),
    "virtual_copy": lambda host: virtual(
        host=host, layout="sliced", sharing="copy", deferred=False, background=False),
}  # fmt: skip


@cache
def alone(mode, shape="llama"):
    """Serve one request after the other in the simplest memory: nothing can disturb it."""
    return serve(
        contiguous(ROOMY_TOKENS, reservation="oracle", shape=OPT) if shape == "opt"
        else contiguous(ROOMY_TOKENS, reservation="oracle"),
        requests(), mode, shape, policy="static", max_num_batched_tokens=1,
    )  # fmt: skip


#: more of the same sizes and reservations, which `make test-further` takes
MORE = ("contiguous_pow2", "paged_32", "paged_128", "virtual_128")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.further] if name in MORE else []) for name in ROOMY],
)
def test_any_allocator_emits_what_each_request_gets_alone(name, mode):
    seen = serve(ROOMY[name](), requests(), mode)
    assert seen.digest == alone(mode).digest
    assert seen.log.timeline["batch"].max() > 1 == alone(mode).log.timeline["batch"].max()


#: any two of the three options together; all three with `further`
PRESSED = [
    pytest.param(
        name, mode, preemption, id=f"{name}-{mode}-{preemption}",
        marks=[pytest.mark.further] if (i + j + k) % 2 else [],
    )
    for i, name in enumerate(TIGHT)
    for j, mode in enumerate(MODES)
    for k, preemption in enumerate(("recompute", "swap"))
]  # fmt: skip


@pytest.mark.parametrize(("name", "mode", "preemption"), PRESSED)
def test_pressure_changes_no_token(name, mode, preemption):
    host = 4 * TIGHT_TOKENS if preemption == "swap" else 0
    seen = serve(TIGHT[name](host), requests(), mode, watch_memory=True, preemption=preemption)
    assert seen.digest == alone(mode).digest
    if name != "contiguous_oracle" and mode != "greedy":
        assert seen.preemptions, "the pool was meant to be tight"
        assert bool(seen.swaps) == (preemption == "swap")
    if "hash" in name or "radix" in name:
        assert seen.hits
    if mode == "beam" and name != "paged_1":  # a block of one token is never written twice
        assert seen.copies


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["static", "orca", "chunked"])
def test_the_engine_changes_no_token(policy, mode):
    if policy == "chunked" and mode == "beam":
        pytest.skip("engine=chunked runs no beams")
    budget = {"max_num_batched_tokens": 24} if policy == "chunked" else {}
    memory = paged(120 if mode == "greedy" else 200, block_size=4, prefix_index="hash")
    seen = serve(memory, requests(), mode, policy=policy, **budget)
    assert seen.digest == alone(mode).digest
    assert seen.hits
    assert seen.preemptions or policy == "static"


#: any two of the three options together, and those that `PRESSED` leaves out
BESIDE = [
    (name, mode, ("recompute", "swap")[(i + j) % 2])
    for i, name in enumerate(name for name in TIGHT if name != "contiguous_oracle")
    for j, mode in enumerate(MODES)
]


@pytest.mark.parametrize(("name", "mode", "preemption"), BESIDE)
def test_prompts_beside_decodes_change_no_token(name, mode, preemption):
    host = 4 * TIGHT_TOKENS if preemption == "swap" else 0
    engine = {"policy": "orca", "preemption": preemption}
    seen = serve(TIGHT[name](host), requests(), mode, watch_memory=True, **engine)
    assert seen.digest == alone(mode).digest
    assert bool(seen.swaps) == (preemption == "swap" and seen.preemptions > 0)
    if mode != "greedy":
        assert seen.preemptions, "the pool was meant to be tight"
    if mode == "beam" and name != "paged_1":
        assert seen.copies


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [contiguous, paged, virtual])
def test_opt_emits_the_same_tokens_too(make, mode):
    seen = serve(make(600, shape=OPT), requests(), mode, "opt")
    assert seen.digest == alone(mode, "opt").digest != alone(mode).digest


def test_offloaded_prefixes_come_back_as_they_were():
    table = requests(24, seed=3)
    expected = serve(paged(ROOMY_TOKENS, block_size=4), table)
    memory = paged(110, host=400, block_size=4, prefix_index="hash", offload=True)
    seen = serve(memory, table)
    assert seen.digest == expected.digest
    assert seen.swaps
    assert seen.hits
    assert memory.evictions


def test_sampling_depends_on_the_seed_and_on_temperature():
    table = requests()
    first = serve(paged(ROOMY_TOKENS), table, "parallel")
    assert first.digest != serve(paged(ROOMY_TOKENS), table, "parallel", seed=6).digest
    samples = first.outputs[0]
    assert len({tuple(row) for row in samples.tolist()}) > 1, "all samples are the same"


@pytest.mark.parametrize("handles", ["on_demand", "ahead"])
def test_what_is_resident_is_what_was_told_however_handles_are_made(handles):
    """A GPU's `auto` makes them ahead, and then the whole pool is held from the start."""
    here = Stage("cpu", "small", handles=handles)
    variant = next(v for v in variants("cpu", "small") if v.family == "virtual")
    facts = here.serve(variant, "greedy").facts
    assert facts["resident_offset_bytes"] == 0
    assert facts["resident_difference_bytes"] == [0, 0]
    assert facts["resident_peak_bytes"]
