"""Which loop serves a run, why not the compiled one, and where that is kept."""

import errno
import sys
from dataclasses import replace

import numpy as np
import pytest
from numba.core import caching

from allocators.base import Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.rules import paged
from allocators.rules.hashed import ORDERS
from allocators.virtual import Virtual
from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant
from harness.cost import flat
from harness.engine import choice
from harness.engine.choice import choose_engine
from harness.engine.compiled import build
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.setup import Setup
from harness.results import ResultRow
from harness.results.outputs import loop_sentence
from tests.engine.cases import MODES, POOL, Metronome, drawn, roofline, table

GREEDY = SamplingSpec("greedy")


class Own(Paged):
    """A third party's, whose rules nobody else knows."""


def chosen(allocator=None, requests=None, sampling=GREEDY, executor=None, observers=(), **options):
    allocator = allocator or Paged(POOL)
    requests = requests or drawn(10)
    spec = EngineSpec(**{"max_num_seqs": 32} | options)
    executor = executor or roofline(allocator)
    return choose_engine(Setup(allocator, requests, sampling, spec, executor, 0, observers)).loop


REFUSED = {
    "sampling.mode=speculative": {"sampling": SamplingSpec("speculative"), "policy": "continuous"},
    "engine.preemption=swap": {"preemption": "swap"},
    "wait for the end of others": {"requests": drawn(10, "closed")},
    "recorded of each step": {"observers": [object()]},
    "prefix index": {"allocator": Paged(POOL, prefix_index="radix")},
    "index, decides": {"allocator": Paged(POOL, prefix_index="hash", eviction="s3fifo")},
    "with one sequence a request": {
        "allocator": Paged(POOL, prefix_index="hash"),
        "sampling": MODES["parallel"],
    },
    "a static batch with a prefix index": {
        "allocator": Paged(POOL, prefix_index="hash"),
        "policy": "static",
    },
    "this allocator": {"allocator": Own(POOL)},
    "decides in Python": {"allocator": Virtual(POOL, page_size="64KiB", rules="paper")},
    "decides in": {"allocator": Virtual(POOL, page_size="64KiB", admission="vattention")},
    "compiled clock": {"executor": Metronome()},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_compiled_is_refused_with_on_and_runs_with_auto(reason, monkeypatch):
    monkeypatch.setattr(choice, "_pays", lambda *args: True)
    assert chosen(**REFUSED[reason]) == "steps"
    with pytest.raises(Unsupported, match=rf"^engine\.compiled=on: .*{reason}.*; engine"):
        chosen(compiled="on", **REFUSED[reason])


@pytest.mark.parametrize("policy", ["chunked", "continuous", "static", "orca"])
@pytest.mark.parametrize("mode", MODES)
def test_each_family_is_compiled(policy, mode):
    if (policy, mode) == ("chunked", "beam"):
        pytest.skip("no loop serves it")
    hashed = [Paged(POOL, prefix_index="hash", eviction=x, free_order=y) for x, y in ORDERS]
    single = mode == "greedy" and policy != "static"
    for allocator in (
        Paged(POOL),
        Contiguous(POOL),
        Virtual(POOL, page_size="64KiB"),
        *(hashed if single else ()),
    ):
        loop = chosen(allocator, compiled="on", policy=policy, sampling=MODES[mode])
        assert loop == "compiled"


def test_auto_compiles_only_where_that_pays(monkeypatch):
    few, some, many = (table(*np.ones((2, n), dtype=int)) for n in (100, 4_000, 60_000))
    for kept, expected in ((False, "steps"), (True, "compiled")):
        monkeypatch.setattr(choice, "is_kept", lambda *args, kept=kept: kept)
        assert chosen(requests=few) == "steps"
        assert chosen(requests=some) == expected
        assert chosen(requests=many) == "compiled"
        assert chosen(requests=many, compiled="off") == "steps"


def test_beams_take_a_step_a_token_so_that_fewer_requests_pay(monkeypatch):
    """The more slowly, the less a pool holds at once; `max` reserves it for one after the other."""
    monkeypatch.setattr(choice, "is_kept", lambda *args: True)
    requests = table([20] * 400, [30] * 400)  # 12,000 steps in turn, 1,500 of eight at once
    large = replace(POOL, capacity_tokens=8 * 4 * 64)
    monkeypatch.setattr(choice, "_load_s", lambda: choice.LOAD_S)
    for allocator, expected in (
        (Contiguous(replace(POOL, capacity_tokens=4 * 64)), "compiled"),
        (Contiguous(large), "steps"),
        (Paged(replace(POOL, capacity_tokens=4 * 64)), "compiled"),
        (Paged(large), "steps"),
        (Virtual(replace(POOL, capacity_tokens=4 * 64), page_size="64KiB"), "compiled"),
    ):
        for sampling, loop in ((MODES["beam"], expected), (GREEDY, "steps")):
            assert chosen(allocator, requests, sampling, policy="continuous") == loop


def test_a_second_loop_of_a_process_pays_sooner(monkeypatch):
    monkeypatch.setattr(choice, "is_kept", lambda *args: True)
    monkeypatch.setitem(sys.modules, "numba", sys.modules.get("numba"))
    some = table(*np.ones((2, 500), dtype=int))
    assert chosen(requests=some) == "compiled"
    monkeypatch.setattr(choice, "_load_s", lambda: choice.LOAD_S)
    assert chosen(requests=some) == "steps"


def test_auto_weighs_the_blocks_of_long_prompts_that_are_looked_up(monkeypatch):
    monkeypatch.setattr(choice, "is_kept", lambda *args: False)
    long = table(np.full(6_000, 50_000), np.ones(6_000, dtype=int))
    assert chosen(requests=long) == "steps"
    assert chosen(Paged(POOL, prefix_index="hash"), requests=long) == "compiled"


def test_a_row_says_which_loop_served_it_or_why_none_did():
    options = ["+workload=uniform", "workload.num_requests=3", "allocator=[paged]", "report=none"]
    row, _ = run_variant(prepare(compose(*options)), "paged")
    assert (row.status, row.loop) == ("ok", "steps")
    swaps = ("engine.preemption=swap", "engine.compiled=on")
    row, _ = run_variant(prepare(compose(*options, *swaps)), "paged")
    assert row.status == "unsupported"
    assert row.reason.startswith("engine.compiled=on: engine.preemption=swap runs step by step")


# -- where it is kept --------------------------------------------------------------------------
def tiny(arrays, prices, options, state, block):
    """Stands for a loop, and takes a moment to compile."""
    return arrays + 1


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A folder for what is compiled, and a loop that was never compiled."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(build.LOOPS, "tiny", tiny)
    for function in (build.compiled, build.cache_folder):
        function.cache_clear()
    yield tmp_path / "cache"
    for function in (build.compiled, build.cache_folder):
        function.cache_clear()


def run_tiny():
    return build.compiled("tiny", paged, flat)(1, 2, 3, 4, 5)


def test_what_is_compiled_is_kept_on_disk(cache):
    assert not build.is_kept("tiny", paged, flat)
    assert run_tiny() == 2
    assert build.is_kept("tiny", paged, flat)
    assert list(cache.rglob("*.nbc"))


def test_what_another_checkout_compiled_is_not_taken_for_kept(cache, monkeypatch):
    run_tiny()
    build.cache_folder.cache_clear()
    monkeypatch.setattr(build, "__file__", "/another/checkout/build.py")
    assert not build.is_kept("tiny", paged, flat)


def test_a_change_of_a_rule_is_not_overlooked(cache, monkeypatch):
    before = build.cache_folder("tiny", paged, flat)
    build.cache_folder.cache_clear()
    source = build.inspect.getsource
    monkeypatch.setattr(build.inspect, "getsource", lambda module: source(module) + "\n")
    assert build.cache_folder("tiny", paged, flat) != before


def test_a_cache_that_cannot_be_made_is_done_without(cache):
    cache.write_text("a file where the folder should be")
    assert build.cache_folder("tiny", paged, flat) is None
    assert not build.is_kept("tiny", paged, flat)
    assert run_tiny() == 2


def test_a_read_only_cache_is_done_without(cache, monkeypatch):
    monkeypatch.setattr(build.os, "access", lambda path, mode: False)
    assert build.cache_folder("tiny", paged, flat) is None
    assert run_tiny() == 2
    assert not list(cache.rglob("*.nb?"))


def test_a_full_disk_costs_the_cache_and_not_the_run(cache, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    assert run_tiny() == 2


def test_a_folder_that_numba_refuses_is_done_without(cache, monkeypatch):
    """Numba then looks for a place of its own, where it would overlook a change of a rule."""

    def refuse(locator):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(caching.UserProvidedCacheLocator, "ensure_cache_path", refuse)
    assert run_tiny() == 2
    assert not list(cache.rglob("*.nb?"))


def test_a_report_says_what_was_compiled():
    rows = [ResultRow("a", loop="compiled"), ResultRow("b", loop="steps"), ResultRow("c", "oom")]
    assert loop_sentence(rows) == "a compiled, b step by step"
    assert loop_sentence(rows[:1]) == "a compiled"
    assert loop_sentence(rows[1:]) is None
