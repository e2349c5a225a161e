"""`engine=chunked` with parallel sampling: every family, and what its slots hold at each step."""

import numpy as np
import pytest

from allocators.base import Demand, Geometry, Prompt, Unsupported
from allocators.contiguous import Contiguous
from allocators.paged import Paged
from allocators.virtual import Virtual
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from harness.engine.setup import Setup
from harness.results.summary import summarize
from tests.engine.schedulers.chunked.cases import FAMILIES, Checked, allocator, executor, requests
from workloads.requests import RequestTable


class Written(Checked):
    """Keeps what each slot of the pool was last written, as a real executor would write it.

    A slot's content is told by all tokens up to its own: by the prompt so far, or by the sequence
    and the position behind the prompt.
    """

    def __init__(self, of, table):
        super().__init__(of)
        self._prompts = [
            [hash(tuple(ids[: end + 1].tolist())) for end in range(len(ids))]
            for ids in table.token_ids
        ]
        self._slots = np.full(of.geometry.capacity_tokens, -1, dtype=np.int64)
        self.forks = 0

    def content(self, group, sequence, start, stop):
        prompt = self._prompts[group.index]
        private = range(max(start, len(prompt)), stop)
        behind = [hash((group.index, sequence, position)) for position in private]
        return np.array([*prompt[start:stop], *behind], dtype=np.int64)

    def step(self, plan, lengths):
        for grant in plan.grants:
            sources = [self._slots[s : s + n].copy() for s, _, n in grant.copies.tolist()]
            for content, (_, target, n) in zip(sources, grant.copies.tolist(), strict=True):
                self._slots[target : target + n] = content
        running = self.engine._scheduler.running
        for chunk in plan.chunks:
            row = int(chunk.group.rows[chunk.sequence])
            self.write(chunk.group, chunk.sequence, row, chunk.past_tokens, chunk.new_tokens)
        for row, length in zip(plan.rows.tolist(), lengths.tolist(), strict=True):
            group = running.groups[int(running.owner[running.rows == row][0])]
            assert group.forked
            self.write(group, group.rows.tolist().index(row), row, length - 1, 1)
        for group in running.groups.values():
            for sequence, row in enumerate(group.held_rows.tolist()):
                held = self._slots[self._of.addresses(row)]
                assert (held == self.content(group, sequence, 0, len(held))).all()
        return super().step(plan, lengths)

    def write(self, group, sequence, row, past, new):
        assert self._of.length[row] == past + new
        at = self._of.addresses(row)[past : past + new]
        self._slots[at] = self.content(group, sequence, past, past + new)


def run(family, table, n, checked=False, skip=True, **options):
    of = allocator(family)
    make = Written(of, table) if checked else executor(of)
    spec = EngineSpec(policy="chunked", skip_ahead=skip, **{"max_num_batched_tokens": 24} | options)
    make.engine = Engine(Setup(of, table, SamplingSpec("parallel", n=n), spec, make, seed=0))
    log = make.engine.run(family)
    log.check()
    return log, of


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_slot_holds_what_its_sequence_computed(family, n):
    table = requests(n=40)
    log, of = run(family, table, n, checked=True)
    assert sorted(log.requests["request"].tolist()) == list(range(len(table)))
    assert (log.requests["first_token_s"] > log.requests["first_scheduled_s"]).all()
    assert (log.requests["finish_s"] >= log.requests["first_token_s"]).all()
    assert (log.timeline["batched_tokens"] >= 1).all()
    assert (log.timeline["batched_tokens"] <= 24).all()
    assert not of.active.any()
    assert of.balance()[0] == 0
    fed = int((table.prompt_tokens + n * (table.output_tokens - 1)).sum())
    metrics = summarize(log)
    assert metrics["computed_tokens"] + metrics["hit_tokens"] >= fed
    if not of.has_prefix_index:
        assert metrics["computed_tokens"] == fed + metrics["wasted_tokens"]
    else:
        assert metrics["hit_tokens"] > 0 < metrics["evictions"]
    if n > 1:
        assert metrics["copied_bytes"] > 0 or family == "paged_one"  # whose blocks are never shared
        assert metrics["preemptions"] > 0 or family in ("contiguous_max", "contiguous_oracle")


@pytest.mark.parametrize("arrivals", ["at_once", "poisson", "closed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_skipping_ahead_changes_no_bit(family, arrivals):
    table = requests(n=30, arrivals=arrivals)
    first, _ = run(family, table, 2)
    single, _ = run(family, table, 2, skip=False)
    for name, column in first.timeline.items():
        assert (column == single.timeline[name]).all(), name
    for name, column in first.requests.items():
        np.testing.assert_array_equal(column, single.requests[name], err_msg=name)
    assert first.totals | {"allocator_host_s": 0} == single.totals | {"allocator_host_s": 0}


def paged_pool(tokens, block=4, **knobs):
    return Paged(
        Geometry(capacity_tokens=tokens, max_seqs=16, max_len=96), block_size=block, **knobs
    )


def serve(of, prompts, outputs, n, **options):
    table = RequestTable(np.zeros(len(prompts)), np.array(prompts), np.array(outputs))
    spec = EngineSpec(policy="chunked", skip_ahead=False, **options)
    return Engine(Setup(of, table, SamplingSpec("parallel", n=n), spec, executor(of), seed=0)).run(
        "x"
    )


def test_the_steps_of_one_group():
    """Six tokens of prompt in two steps, the fork with the copy in the third, then lockstep."""
    log = serve(paged_pool(64), [6], [4], n=3, max_num_batched_tokens=4)
    assert log.timeline["batched_tokens"].tolist() == [4, 2, 3, 3, 3]
    assert log.timeline["blocks_in_use"].tolist() == [1, 2, 4, 4, 7]
    per_slot = log.capacity_bytes // 64
    assert log.timeline["copied_bytes"].tolist() == [0, 0, 2 * 2 * per_slot, 0, 0]
    assert log.requests["first_token_s"].tolist() == [log.timeline["time_s"][1]]


def test_a_preempted_group_computes_its_prompt_once_and_the_rest_for_each():
    """Two groups of 4 + 5 slots on 8 blocks; the second goes when both need blocks, and returns."""
    log = serve(paged_pool(32), [4, 4], [6, 6], n=2, max_num_batched_tokens=8)
    assert log.timeline["preemptions"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    # 8: both prompts; 2 x 2 a step; the first alone ends; 4: the prompt; 2 x 4; 2 x 1.
    assert log.timeline["batched_tokens"].tolist() == [8, 4, 4, 4, 4, 2, 4, 8, 2]
    assert log.totals["wasted_tokens"] == 4 + 2 * 4


def test_a_group_that_ends_with_its_first_token_is_never_forked():
    log = serve(paged_pool(8), [6], [1], n=4)
    assert log.timeline["batched_tokens"].tolist() == [6]
    assert log.timeline["blocks_in_use"].tolist() == [2]


def test_a_group_takes_its_rows_when_it_is_admitted():
    log = serve(paged_pool(640), [4, 4], [2, 2], n=3, max_num_seqs=5)
    assert log.timeline["running"].tolist() == [1, 0, 1, 0]
    log = serve(paged_pool(640), [4, 4], [2, 2], n=3, max_num_seqs=6)
    assert log.timeline["running"].tolist() == [2, 0]


def test_what_stands_behind_a_group_left_out_waits():
    """The first takes 3 of 4 tokens; the second may not fork for one, and nobody overtakes it."""
    log = serve(paged_pool(640), [1, 1, 9], [4, 3, 2], n=3, max_num_batched_tokens=4)
    assert log.timeline["batched_tokens"].tolist() == [4, 3, 3, 3, 4, 4, 4, 1, 3]


def small(of, **knobs):
    geometry = Geometry(128, 8, 64, layers=2, kv_heads=8, head_dim=512)
    return of(geometry, **knobs)


@pytest.mark.parametrize(
    "of",
    [
        lambda: small(Contiguous, reservation="pow2"),
        lambda: small(Contiguous, reservation="oracle"),
        lambda: small(Contiguous, reservation="grow"),
        lambda: small(Paged, block_size=4),
        lambda: small(Paged, block_size=4, prefix_index="hash"),
        lambda: small(Virtual, page_size="64KiB"),
        lambda: small(Virtual, page_size="64KiB", sharing="copy"),
    ],
)
def test_a_group_that_can_never_fit_is_named(of):
    """4 x 40 private slots are more than 128, however they are shared."""
    with pytest.raises(Unservable, match=r"'1' .*4 sequences\) can never fit"):
        serve(of(), [4, 10], [2, 41], n=4)


@pytest.mark.parametrize(
    ("of", "generated"),
    [
        (lambda: small(Contiguous, reservation="oracle"), 0),
        (lambda: small(Paged, block_size=8), 16),
        (lambda: small(Virtual, page_size="64KiB", background=False), 16),
        (lambda: small(Virtual, page_size="64KiB", background=False, sharing="copy"), 0),
    ],
)
def test_the_first_of_a_group_is_let_in_only_if_its_forks_would_fit(of, generated):
    """64 of 128 slots are free: enough for two times 24 or 3 + 2 x 2 pages of 8, not for three."""
    of = of()
    assert of.admit(np.array([7]), Prompt(60), Demand(60, 5)) is not None
    before = of.balance()
    prompt = Prompt(8, whole_tokens=24 + generated)
    assert of.admit(np.array([0]), prompt, Demand(24, 9, sequences=3)) is None
    assert of.balance() == before
    assert of.admit(np.array([0]), prompt, Demand(24, 9, sequences=2)) is not None
    assert of.length[0] == 8
    assert not of.active[1:7].any()
    assert of.grow(np.array([0]), 16) is not None
    assert of.fork(0, np.array([1]), Demand(24, 9, generated)) is not None
    of.check()


class NeverForks(Paged):
    def fork(self, parent, children, demand):
        return None


def test_an_allocator_that_always_refuses_a_fork_is_not_asked_for_ever():
    of = NeverForks(Geometry(capacity_tokens=64, max_seqs=8, max_len=96))
    with pytest.raises(Unservable, match="refused all its sequences"):
        serve(of, [4, 4], [3, 3], n=2)


def test_what_it_cannot_do_is_said():
    with pytest.raises(Unsupported, match="max_num_batched_tokens=3"):
        serve(paged_pool(64), [4], [3], n=4, max_num_batched_tokens=3)
    with pytest.raises(Unsupported, match="never fits in max_num_seqs=3"):
        serve(paged_pool(64), [4], [3], n=4, max_num_seqs=3)
    of, table = allocator("paged"), requests(4)
    spec = EngineSpec(policy="chunked")
    with pytest.raises(Unsupported, match=r"sampling\.mode=beam"):
        Engine(Setup(of, table, SamplingSpec("beam", width=2), spec, executor(of), seed=0))
