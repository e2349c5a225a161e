"""Conversations: contexts that grow turn by turn, what they share, and where they end."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.places import CONF
from tests.workloads.serving import serve
from workloads import LengthSpec, WorkloadError, WorkloadSpec, build, unique_ids
from workloads.lengths import sample


def spec(**changes):
    base = WorkloadSpec(
        name="conversation",
        kind="conversation",
        num_requests=300,
        turns=LengthSpec("geometric", mean=3.0, high=20),
        think_time_s=2.0,
        prompt=LengthSpec("uniform", low=2, high=30),
        output=LengthSpec("uniform", low=2, high=20),
    )
    return dataclasses.replace(base, **changes)


def shared(a, b):
    """Leading identities that two prompts have in common."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def sequence(requests, i):
    """Identities of prompt and output of request i, as the engine makes them."""
    n, out = int(requests.prompt_tokens[i]), int(requests.output_tokens[i])
    known = requests.prompt_ids(i)
    known = unique_ids(i, 0, n) if known is None else known
    return np.concatenate([known, unique_ids(i, n, n + out)])


def whole(requests):
    return requests.prompt_tokens + requests.output_tokens


def test_a_prompt_is_the_whole_history_and_something_new():
    requests = build(spec())
    later = np.flatnonzero(requests.after >= 0)
    new = requests.prompt_tokens[later] - whole(requests)[requests.after[later]]
    assert (new.min(), new.max()) == (2, 30)
    roots = requests.prompt_tokens[requests.roots]
    assert (roots.min(), roots.max()) == (2, 30)
    assert (requests.after[later] == later - 1).all()
    assert len(requests) == 300
    turn = np.arange(300) - requests.root_of()
    numbers = np.cumsum(requests.after < 0) - 1
    assert requests.ids == [f"{c}/{k}" for c, k in zip(numbers, turn, strict=True)]


@pytest.mark.parametrize("prefix", [0, 7])
@pytest.mark.parametrize("history", ["keep", "drop"])
def test_identities_go_on_where_the_turn_before_ended_or_are_new(history, prefix):
    requests = build(spec(history=history, prefix_tokens=prefix, num_prefixes=2, num_requests=60))
    for i in range(60):
        ids = sequence(requests, i)
        assert len(set(ids.tolist())) == len(ids)
        before = int(requests.after[i])
        if before >= 0 and history == "keep":
            assert list(ids[: whole(requests)[before]]) == list(sequence(requests, before))
        for other in range(i):
            if requests.root_of()[other] != requests.root_of()[i] or history == "drop":
                same_prefix = prefix and requests.prefix_id[i] == requests.prefix_id[other]
                assert shared(ids, sequence(requests, other)) == (prefix if same_prefix else 0)
    # A system prompt belongs to a conversation, not to a turn.
    if prefix:
        assert (requests.prefix_id == requests.prefix_id[requests.root_of()]).all()


def test_truncated_conversations_keep_what_they_share():
    requests = build(spec(turns=LengthSpec("fixed", value=6), num_requests=60))
    cut = requests.limit(70, "truncate")
    assert whole(cut).max() == 70
    for i in range(60):
        assert len(cut.prompt_ids(i)) == cut.prompt_tokens[i]
        before = int(cut.after[i])
        if before >= 0:
            n = min(int(cut.prompt_tokens[i]), int(whole(cut)[before]))
            assert list(cut.prompt_ids(i)[:n]) == list(sequence(cut, before)[:n])
            assert shared(cut.prompt_ids(i), sequence(cut, before)) == n


def test_skipping_long_turns_ends_their_conversations_and_renumbers_identities():
    requests = build(spec(turns=LengthSpec("fixed", value=6)))
    kept = requests.limit(90, "skip")
    turns = np.array([int(name.split("/")[1]) for name in kept.ids])
    assert (kept.prompt_tokens[turns == 0] <= 30).all()
    later = np.flatnonzero(kept.after >= 0)
    assert [kept.name(i).split("/")[0] for i in later] == [
        kept.name(kept.after[i]).split("/")[0] for i in later
    ]
    for i in later[:40].tolist():
        before = int(kept.after[i])
        assert shared(kept.prompt_ids(i), sequence(kept, before)) == whole(kept)[before]


@settings(max_examples=60, deadline=None)
@given(
    cap=st.integers(30, 150),
    prefix=st.sampled_from((0, 9)),
    conversations=st.one_of(st.none(), st.integers(1, 40)),
    requests=st.one_of(st.none(), st.integers(1, 120)),
    seed=st.integers(0, 5),
)
def test_a_cap_ends_conversations_and_the_smaller_number_counts(
    cap, prefix, conversations, requests, seed
):
    if conversations is None and requests is None:
        requests = 50
    limits = {"num_conversations": conversations, "num_requests": requests}
    capped = spec(max_context_tokens=cap, prefix_tokens=prefix, **limits)
    table = build(capped, seed)
    assert whole(table).max() <= cap
    at_most = conversations or 10**9
    assert len(table.roots) <= at_most
    assert len(table) <= (requests or 10**9)
    # All of one or of the other, never less of both.
    assert len(table) == requests or len(table.roots) == at_most
    # More of either leaves the first ones as they were.
    more = {name: value and 3 * value for name, value in limits.items()}
    longer = build(dataclasses.replace(capped, **more), seed)
    n = len(table)
    for column in ("prompt_tokens", "output_tokens", "after", "think_s"):
        assert list(getattr(longer, column)[:n]) == list(getattr(table, column))
    # Where a conversation of the uncut workload goes on, it would have been too long.
    plan = build(
        # Enough of them, also where a small cap leaves most conversations out.
        spec(num_requests=None, num_conversations=200 + 4 * (conversations or requests),
             prefix_tokens=prefix), seed,
    )  # fmt: skip
    fits = whole(plan) <= cap
    assert list(plan.prompt_tokens[fits][:n]) == list(table.prompt_tokens[:n])


def test_a_first_turn_that_is_too_long_is_left_out_with_its_conversation():
    table = build(spec(max_context_tokens=20, num_requests=40))
    assert len(table) == 40
    assert "conversations were left out: their first turn alone is longer than" in table.notes[0]
    assert not build(spec(max_context_tokens=50, num_requests=40)).notes


def test_think_times_are_exponential_and_rates_are_of_conversations():
    table = build(spec(num_requests=30_000, rate=4.0))
    think = table.think_s[table.after >= 0]
    assert think.mean() == pytest.approx(2.0, rel=0.03)
    assert think.std() == pytest.approx(2.0, rel=0.05)
    assert not table.think_s[table.after < 0].any()
    gaps = np.diff(table.arrival_s[table.roots])
    assert gaps.mean() == pytest.approx(0.25, rel=0.05)
    faster = build(spec(num_requests=30_000, rate=8.0))
    assert table.arrival_s[table.roots] == pytest.approx(2 * faster.arrival_s[table.roots])
    assert (table.think_s == faster.think_s).all()


def test_kept_history_is_found_again_and_dropped_history_is_not():
    hits = {}
    for history in ("keep", "drop"):
        table = build(spec(history=history, num_requests=80, concurrency=3))
        log = serve(table, index="hash", pool_tokens=6000, block_size=4)
        hits[history] = int(log.timeline["hit_tokens"].sum())
    # Whole blocks of what the turn before had fed: all its tokens but the last one sampled.
    later = table.after >= 0
    fed = whole(table)[table.after[later]] - 1
    assert hits["keep"] == int((fed // 4 * 4).sum())
    assert hits["drop"] == 0


def test_the_shipped_option_fits_its_context_and_has_the_turns_it_plans():
    document = OmegaConf.load(CONF / "workload" / "conversation.yaml").workload
    option = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(WorkloadSpec), document))
    table = build(option)
    assert len(table) == 1000
    assert whole(table).max() <= 2048
    uncapped = build(dataclasses.replace(option, max_context_tokens=None, num_requests=8000))
    assert 8000 / len(uncapped.roots) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_requests": None}, "workload.num_requests or workload.num_conversations is needed"),
        ({"num_conversations": 0}, "workload.num_conversations=0"),
        ({"turns": LengthSpec("geometric")}, "workload.turns.mean is needed"),
        ({"turns": LengthSpec("geometric", mean=0.5)}, "workload.turns.mean=0.5"),
        ({"turns": LengthSpec("geometic")}, "did you mean geometric"),
        ({"think_time_s": -1.0}, "workload.think_time_s=-1.0"),
        ({"history": "kep"}, "did you mean keep"),
        ({"max_context_tokens": 1}, "workload.max_context_tokens=1"),
        ({"max_context_tokens": 3}, "leaves too few conversations"),
        ({"prefix_tokens": -1}, "workload.prefix_tokens=-1"),
        ({"pace": "dependent"}, "workload.pace=dependent is for traces"),
        ({"pace": "x"}, "workload.pace='x' is unknown"),
    ],
)
def test_bad_conversations_are_one_clear_line(changes, message):
    with pytest.raises(WorkloadError) as caught:
        build(spec(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", ["redraw", "clip"])
@pytest.mark.parametrize(("mean", "low", "high"), [(1.0, 1, None), (4.0, 1, 50), (6.0, 3, 9)])
def test_geometric_lengths_follow_their_law(cut, mean, low, high):
    turns = LengthSpec("geometric", mean=mean, low=low, high=high, cut=cut)
    if (mean, low) == (1.0, 1):
        assert build(spec(turns=turns, think_time_s=0.0)).after.max() == -1
    rng = np.random.default_rng(1)
    drawn = sample(turns, 200_000, rng, "turns")
    k = np.arange(1, 400)
    law = (1 - 1 / mean) ** (k - 1) / mean
    if cut == "redraw":
        law = np.where((k >= low) & (k <= (high or 400)), law, 0)
        want = law / law.sum()
    else:
        want = np.bincount(np.clip(k, low, high), weights=law, minlength=400)[1:400]
    share = np.bincount(drawn, minlength=400)[1:400] / len(drawn)
    assert share == pytest.approx(want, abs=0.004)
