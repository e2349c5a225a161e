"""Workloads of which the best setting is known: it is found, and nothing else is changed."""

import pytest

from harness.advise.evidence import Weighed, around, weigh
from harness.advise.fleet import choose, fleet_of
from harness.advise.race import Clock
from harness.advise.sensitivity import ask, kv_kernels
from harness.advise.space import Setting
from harness.capacity.probe import Observation
from harness.capacity.question import composed_of
from harness.errors import ConfigError
from tests.advise.inside import SMALL, fixed, ring_of, weighed


def test_a_common_prefix_of_2000_tokens_asks_for_a_prefix_index():
    _, _, found = weighed(
        *("+workload=shared_prefix", "workload.prefix_tokens=2000", "model=llama-3-8b"),
        *("workload.output.kind=fixed", "workload.output.value=4"),
        *("hardware=h100-80gb", "engine.compiled=off", "requests=100", "seeds=3"),
        *("at_least=0.1", "slo.ttft_p99_s=1", "search=[prefix_index]", "allocator=[paged]"),
    )
    assert [name for name, _ in found.setting.changed] == ["prefix_index"]
    (worth,) = found.worth
    assert worth.ratio.low > 2
    assert found.over_default == worth.ratio


def test_a_pool_that_fits_seven_sequences_asks_for_seven():
    """A batch that runs to its end: an eighth must be preempted, a sixth leaves room idle."""
    _, _, found = weighed(
        *fixed(200, 56),
        *("engine.compiled=off", "model=opt-13b", "requests=100", "seeds=3", "at_least=0.1"),
        *("engine=static", "kv_tokens=1792", "slo.itl_s=0.5", "allocator=[paged]"),
        "search=[max_num_seqs]",
    )
    assert found.setting == Setting((("max_num_seqs", "7"),))
    assert found.worth[0].ratio is None or found.worth[0].ratio.low > 1


def test_a_pool_that_is_too_small_in_bf16_asks_for_fp8_where_that_is_allowed():
    """500 tokens of OPT-13B take 0.38 GiB in bf16, and half of it in fp8."""
    small = (*fixed(400, 100), *SMALL, "allocator=[paged]", "kv_memory_gib=0.3")
    ring, _, found = weighed(*small, "kv_dtypes=[auto,fp8]", "search=[kv_dtype]")
    assert found.setting == Setting((("kv_dtype", "fp8"),))
    assert found.worth[0].ratio is None
    with pytest.raises(ConfigError, match="the KV pool holds 393 tokens and request"):
        weighed(*small, "search=[max_num_seqs]")
    assert "kv_dtype=fp8" in ring.space.lines(found.setting)


@pytest.fixture(scope="module")
def twice_the_room():
    """One sequence fits in bf16, three in fp8."""
    asked = ("allocator=[paged]", "kv_memory_gib=0.6", "slo.ttft_p99_s=30", "search=[kv_dtype]")
    return weighed(*fixed(400, 100), *SMALL, *asked, "kv_dtypes=[auto,fp8]")


def test_fp8_is_worth_the_sequences_that_it_makes_room_for(twice_the_room):
    _, _, found = twice_the_room
    assert found.setting == Setting((("kv_dtype", "fp8"),))
    assert found.worth[0].ratio.low > 1.5
    assert found.over_default == found.worth[0].ratio


def test_the_clock_of_a_narrower_kv_is_asked_about(twice_the_room):
    """Room is what counts here, so that kernels which gain no speed of it change nothing."""
    ring, best, found = twice_the_room
    (asked,) = kv_kernels(ring.space, found.setting)
    assert asked.name == "kernels that read fp8 no faster"
    assert asked.of(ring.space.default) == ()
    decode, prefill = (float(line.partition("=")[2]) for line in asked.of(found.setting))
    config = ring.space.config()
    assert decode == pytest.approx(config.hardware.decode_bandwidth_efficiency / 2, rel=1e-3)
    assert prefill == pytest.approx(config.cost_model.prefill_bandwidth_efficiency / 2, rel=1e-3)
    answers = []
    ask(ring, found, [], best.per_gpu, 3, Clock(1e9), answers.append)
    (answer,) = [each for each in answers if each.perturbation == asked]
    assert answer.times <= 1
    assert (answer.flips, answer.idle) == ([], [])
    assert kv_kernels(ring.space, ring.space.default) == []


def test_of_changes_that_are_level_the_type_of_the_kv_is_the_last():
    """Made up: more sequences and fp8 do the same, and both together no more."""

    def see(probe):
        config = composed_of(probe.variant.options)
        helped = config.kv_dtype == "fp8" or config.engine.max_num_seqs == 512
        grows = probe.rate is not None and probe.rate > (20.0 if helped else 10.0)
        return Observation(probe.rate, probe.seed, "ok", diverges=grows, metrics={})

    asked = ("allocator=[paged]", "search=[max_num_seqs,kv_dtype]", "kv_dtypes=[auto,fp8]")
    _, _, found = weighed(*fixed(96, 1), *SMALL, *asked, see=see)
    assert found.setting == Setting((("max_num_seqs", "512"),))


@pytest.mark.parametrize("more", [(), ("kv_dtypes=[auto]",), ("kv_dtypes=[auto,auto]",)])
def test_no_type_of_kv_is_tried_that_was_not_allowed(more):
    ring, _ = ring_of(*fixed(96, 1), *SMALL, "allocator=[paged]", *more)
    assert ring.space.kv_dtypes == ("auto",)
    tried = [knob.name for knob, _, _ in ring.space.neighbours(ring.space.default)]
    assert "max_num_seqs" in tried
    assert "kv_dtype" not in tried


@pytest.fixture(scope="module")
def one_at_a_time():
    """One sequence at a time in a large pool: what admission leaves free cannot matter."""
    return weighed(
        *fixed(96, 1),
        *SMALL,
        *("engine.max_num_seqs=1", "allocator=[paged]", "slo.ttft_mean_s=0.1"),
        "search=[watermark,preemption]",
    )


def test_what_is_equal_stays_at_its_default(one_at_a_time):
    ring, best, found = one_at_a_time
    assert best.setting == found.setting == Setting()
    assert found.worth == []
    levels, _ = around(ring, found, best.per_gpu, Clock(1e9), 1.0)
    said = {each.name: (each.better, each.level, each.worse) for each in levels}
    assert said == {
        "watermark": ((), ("0.01", "0.05"), ()),
        "preemption": ((), ("swap",), ()),
    }


@pytest.mark.parametrize(("times", "gpus"), [(0.5, 1), (0.95, 2), (2.5, 3)])
def test_a_rate_takes_as_many_gpus_as_carry_it(one_at_a_time, times, gpus):
    ring, best, found = one_at_a_time
    sure = fleet_of(Setting(), found.capacity, 1.0, 0.0).sure
    fleet = choose(ring, found, times * sure, 0.1, 3, best.per_gpu)
    assert (fleet.gpus, fleet.servers) == (gpus, gpus)
    assert fleet.held == len(fleet.checked) == 3
    assert fleet.margin >= 0.1


def test_servers_of_another_size_count_where_fewer_gpus_of_them_carry_the_rate():
    """Made up: servers of 2 GPUs carry 2.5 times what one does, and the search did not see it."""

    def see(probe):
        count = composed_of(probe.variant.options).hardware.count
        most = {1: 10.0, 2: 25.0, 4: 40.0, 8: 80.0}[count]
        grows = probe.rate is not None and probe.rate > most
        return Observation(probe.rate, probe.seed, "ok", diverges=grows, metrics={})

    asked = (*fixed(96, 1), *SMALL, "allocator=[paged]", "search=[gpus]")
    ring, _ = ring_of(*asked, see=see)
    found = Weighed(Setting())
    weigh(ring, found, 10.0, 3, lambda line: None)
    fleet = choose(ring, found, 22.0, 0.1, 3, 10.0)
    assert fleet.setting == Setting((("gpus", "2"),))
    assert (fleet.a_server, fleet.servers, fleet.gpus) == (2, 1, 2)
    assert 25 / 1.1 < fleet.sure <= 25
    assert fleet.held == len(fleet.checked) == 3
    # A size that is no better a GPU changes nothing.
    assert choose(ring, found, 8.0, 0.1, 3, 10.0).setting == Setting()
