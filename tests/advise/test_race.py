"""The search and its judgement over runs that are made up, so that every capacity is known."""

import math

import pytest

from harness.advise.evidence import counts, ratio
from harness.advise.race import Clock, Race
from harness.advise.space import Setting, space_of
from harness.capacity.answer import Interval
from harness.capacity.probe import Observation
from harness.capacity.question import composed_of
from harness.size import options
from harness.size.budget import size
from tests.advise.inside import fixed, ring_of, weighed

ASKED = (
    *fixed(96, 1),
    *("model=opt-13b", "requests=100", "seeds=5", "allocator=[paged]", "engine=chunked"),
)
BOTH = Setting((("max_num_seqs", "1024"), ("token_budget", "8192")))


def made_up(capacity):
    """Return a function from a probe to what it would show if this were its capacity."""

    def see(probe):
        config = composed_of(probe.variant.options)
        most = capacity(config, probe.seed)
        grows = probe.rate is not None and probe.rate > most
        metrics = {"requests_per_s": most, "peak_batch": 1}
        return Observation(probe.rate, probe.seed, "ok", diverges=grows, metrics=metrics)

    return see


def test_two_knobs_of_which_neither_helps_alone_are_found_together():
    def capacity(config, seed):
        engine = config.engine
        both = engine.max_num_seqs == 1024 and engine.max_num_batched_tokens == 8192
        return 30.0 if both else 10.0

    search = "search=[max_num_seqs,token_budget]"
    _, best, found = weighed(*ASKED, search, see=made_up(capacity))
    assert best.setting == found.setting == BOTH
    assert 30 / 1.02 < best.per_gpu <= 30
    assert {each.name for each in found.worth} == {"max_num_seqs", "token_budget"}
    assert all(math.isclose(each.ratio.mean, 3, rel_tol=0.02) for each in found.worth)


def test_the_best_of_several_values_is_found_and_no_run_is_made_twice():
    def capacity(config, seed):
        return 10 + 0.5 * math.log2(config.allocators.paged.block_size)

    probes = []
    see = made_up(capacity)
    ring, _ = ring_of(*ASKED, "search=[block_size]", see=lambda p: probes.append(p) or see(p))
    best = Race(ring, Clock(1e9), lambda line: None, []).run()
    assert best.setting == Setting((("block_size", "128"),))
    assert len(probes) == len(set(probes)) < 60


def test_what_helps_on_the_seed_of_the_search_alone_goes_back():
    def capacity(config, seed):
        large = config.engine.max_num_seqs == 512
        by_chance = 1.10 if seed == 0 else (0.97, 1.03)[seed % 2]
        return 10 * (by_chance if large else 1.0)

    _, best, found = weighed(*ASKED, "search=[max_num_seqs]", see=made_up(capacity))
    assert best.setting == Setting((("max_num_seqs", "512"),))
    assert found.setting == Setting()
    assert [each.name for each in found.dropped] == ["max_num_seqs"]
    assert not found.dropped[0].counts


def test_a_pool_is_just_full_where_windows_let_it_be():
    """By its bytes for a token in every layer it would hold three."""
    model = ("model=gemma-3-27b", "hardware=h100-80gb", "engine=chunked")
    space = space_of([*fixed(12000, 377), *model, "allocator=[paged]"], ["max_num_seqs"])
    asked = [*model, "hardware.count=1", "kv_dtype=auto", "lengths=12377"]
    (fit,) = size(options.parse(asked)).rows[0].fits
    assert space.sizes == (str(fit.sequences),) == ("13",)


def test_a_gpu_more_must_pay_for_itself():
    def capacity(config, seed):
        return 10 * config.hardware.count**0.9

    _, _, found = weighed(*ASKED, "search=[gpus]", see=made_up(capacity))
    assert found.setting == Setting()
    assert ratio(found.capacity, found.capacity).mean == 1


@pytest.mark.parametrize(
    ("gain", "counted"),
    [
        (Interval(1.05, 1.03, 1.07), True),
        (Interval(1.05, 0.99, 1.11), False),
        (Interval(1.015, 1.01, 1.02), False),
        (Interval(1.04), False),
        (Interval(1.06), True),
    ],
)
def test_a_gain_counts_beyond_its_noise_and_the_least_that_matters(gain, counted):
    assert counts(gain, 0.02) == counted


def test_a_race_without_time_keeps_the_first_that_holds():
    ring, _ = ring_of(*ASKED, "search=[block_size]", see=made_up(lambda config, seed: 10.0))
    race = Race(ring, Clock(0), lambda line: None, [])
    assert race.run().setting == Setting()
    assert not race.ended
