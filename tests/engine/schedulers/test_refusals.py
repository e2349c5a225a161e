"""Each policy says itself what it cannot serve, and how many tokens a step of it may compute."""

import sys

import pytest

from allocators.base import Unsupported
from allocators.paged import Paged
from harness.engine.config import POLICIES, EngineSpec, SamplingSpec
from harness.engine.schedulers import SCHEDULERS, make_scheduler
from harness.engine.setup import Setup
from tests.engine.cases import POOL, Metronome, drawn

BEAM = SamplingSpec("beam", width=4)
SPECULATIVE = SamplingSpec("speculative")


def setup(sampling, **options):
    return Setup(Paged(POOL), drawn(1), sampling, EngineSpec(**options), Metronome(), seed=0)


def test_every_policy_has_a_scheduler():
    assert tuple(SCHEDULERS) == POLICIES


@pytest.mark.parametrize(
    ("policy", "sampling", "options", "words"),
    [
        ("continuous", BEAM, {"max_num_seqs": 3}, "4 sequences never fits in max_num_seqs=3"),
        ("static", BEAM, {"max_num_seqs": 3}, "4 sequences never fits in max_num_seqs=3"),
        ("chunked", BEAM, {}, "sampling.mode=beam replaces"),
        ("chunked", SamplingSpec(), {"preemption": "swap"}, "preempts by recompute only"),
        ("chunked", SamplingSpec(), {"expected_output_tokens": 1}, "by expected length"),
        ("chunked", SamplingSpec("parallel", n=4), {"max_num_batched_tokens": 3}, "tokens=3"),
        ("orca", BEAM, {"max_num_seqs": 3}, "4 sequences never fits in max_num_seqs=3"),
        ("static", SPECULATIVE, {}, "runs with engine=continuous, not static"),
        ("orca", SPECULATIVE, {}, "runs with engine=continuous, not orca"),
        ("chunked", SPECULATIVE, {}, "runs with engine=continuous, not chunked"),
        # Of several refusals that of the named policy comes first.
        ("chunked", BEAM, {"preemption": "swap", "max_num_seqs": 3}, "sampling.mode=beam"),
        ("chunked", SPECULATIVE, {"preemption": "swap"}, "preempts by recompute only"),
    ],
)
def test_a_policy_refuses_what_it_cannot_serve(policy, sampling, options, words):
    with pytest.raises(Unsupported, match=words):
        make_scheduler(setup(sampling, policy=policy, **options))


@pytest.mark.parametrize(
    ("policy", "max_len", "tokens"),
    [
        ("continuous", 64, 2048),
        ("continuous", 4096, 4096),
        ("static", 64, sys.maxsize),
        ("orca", 64, sys.maxsize),
        ("chunked", 4096, 2048),
    ],
)
def test_the_budget_of_a_step_where_none_is_given(policy, max_len, tokens):
    assert SCHEDULERS[policy].default_budget_tokens(max_len) == tokens
    given = setup(SamplingSpec(), policy=policy, max_num_batched_tokens=7)
    assert SCHEDULERS[policy].budget_tokens(given) == 7
