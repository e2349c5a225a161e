"""Profiles of software: the rule of a step, the front end, and what is refused."""

from dataclasses import fields, replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from harness.comparison import compose, prepare, run_comparison
from harness.cost import CostError, CostSpec, HardwareSpec, ModelShape, Roofline, SoftwareSpec
from harness.cost.software import STEP_CONSTANTS, check_beside_calibration, check_software, ideal
from harness.errors import ConfigError
from tests.cost.steps import decode, prefill, step_by_step_s
from tests.places import CONF, shipped

MODEL = shipped(ModelShape, "model", "llama-2-7b")
GPU = shipped(HardwareSpec, "hardware", "h100-80gb")
PROFILES = sorted(path.stem for path in (CONF / "software").glob("*.yaml"))
NONE = ideal()


def roofline(count=1, **constants):
    machine = replace(GPU, count=count)
    return Roofline(MODEL, machine, CostSpec(), replace(NONE, **constants))


def mixed():
    work = prefill([100, 0, 28], [16, 0, 0], sampled=9)
    work.decode_seqs, work.decode_context_tokens = 7, 3500
    return work


# -- files -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_names_every_constant_and_makes_sense(name):
    written = OmegaConf.load(CONF / "software" / f"{name}.yaml")
    assert list(written) == [item.name for item in fields(SoftwareSpec)]
    profile = shipped(SoftwareSpec, "software", name)
    assert profile.name == name
    check_software(profile)


def test_the_default_is_nominal_and_ideal_takes_no_time():
    assert shipped(SoftwareSpec, "software", "nominal") == SoftwareSpec()
    assert shipped(SoftwareSpec, "software", "ideal") == ideal()
    assert prepare(compose("+workload=uniform", "workload.num_requests=2")).config.software == (
        SoftwareSpec()
    )


# -- a step ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("constant", "times"),
    [("step_us", 1), ("sequence_us", 7 + 2), ("token_us", 7 + 128), ("prefill_us", 2),
     ("sampling_us", 9)],
)  # fmt: skip
def test_a_constant_counts_what_it_says(constant, times):
    with_it, without = roofline(**{constant: 1000.0}), roofline()
    more_s = with_it.step_s(mixed()) - without.step_s(mixed())
    assert more_s == pytest.approx(1e-3 * times)


def test_an_overlapped_step_takes_the_longer_of_both():
    gpu_s = roofline().step_s(mixed())
    for share in (0.5, 2.0):
        cpu_us = 1e6 * gpu_s * share
        step_s = roofline(step_us=cpu_us / 2, sequence_us=cpu_us / 18, overlapped=True)
        assert step_s.step_s(mixed()) == pytest.approx(gpu_s * max(1.0, share))


def test_several_gpus_have_workers_that_are_told_of_a_step():
    told = {"workers_us": 4000.0}
    assert roofline(**told).step_s(mixed()) == roofline().step_s(mixed())
    for count in (2, 8):
        more_s = roofline(count, **told).step_s(mixed()) - roofline(count).step_s(mixed())
        assert more_s == pytest.approx(4e-3)


def test_an_overlapped_host_writes_tables_beside_the_gpu():
    entries, written_s = 10_000, 10_000 * 58e-9
    work = decode(8, 8 * 1000, table_bytes=4 * entries, block_tokens=16)
    gpu_s = roofline().step_s(work)
    waiting = roofline(table_entry_ns=58.0)
    hidden = roofline(table_entry_ns=58.0, overlapped=True)
    assert waiting.step_s(work) == pytest.approx(gpu_s + written_s)
    assert hidden.step_s(work) == gpu_s
    # ... until host and tables together take longer than it does.
    slow = roofline(table_entry_ns=58.0, step_us=1e6 * gpu_s, overlapped=True)
    assert slow.step_s(work) == pytest.approx(gpu_s + written_s)
    window = slow.decode_window_s(8, 8000, 3, 4 * entries * np.arange(3), 16)
    assert np.diff(window) == pytest.approx(written_s)


def test_overlapped_steps_at_once_have_the_bits_of_single_ones_on_both_sides():
    gpu_us = 1e6 * roofline().step_s(decode(32, 32 * 1000))
    roof = roofline(step_us=gpu_us, overlapped=True)
    window = roof.decode_window_s(32, 30_000, 300, 0, False)
    single = step_by_step_s(roof, 32, 30_000, 300, 0, False)
    assert window.tobytes() == single.tobytes()
    assert window[0] == pytest.approx(gpu_us * 1e-6)
    assert len(np.unique(window)) > 1, "the GPU is never the longer one"


def test_a_slowdown_is_of_its_kernels_alone():
    one, four = roofline(), roofline(count=4)
    for name in ("weight_read_slowdown", "small_kernel_slowdown"):
        assert roofline(**{name: 2.0}).step_s(decode(8, 800)) > one.step_s(decode(8, 800))
        assert roofline(**{name: 0.5}).step_s(decode(8, 800)) < one.step_s(decode(8, 800))
    half = {"all_reduce_slowdown": 0.5}
    assert roofline(**half).step_s(decode(8, 800)) == one.step_s(decode(8, 800))
    saved_s = four.step_s(decode(8, 800)) - roofline(4, **half).step_s(decode(8, 800))
    assert saved_s == pytest.approx(MODEL.layers * GPU.all_reduce_latency_us * 1e-6)


# -- beside a calibration ------------------------------------------------------------------------
def test_a_calibration_takes_what_lies_around_a_step_and_refuses_a_step_counted_twice():
    for standing in (SoftwareSpec(), ideal()):
        check_beside_calibration(replace(standing, request_us=9.0, response_us=9.0))
    for name in STEP_CONSTANTS:
        value = True if name == "overlapped" else 3.0
        with pytest.raises(CostError, match=f"software.{name}=.* would count twice"):
            check_beside_calibration(replace(SoftwareSpec(), **{name: value}))


def test_a_real_run_says_that_it_reads_no_profile():
    from harness.cli.ignored import ignored

    config = prepare(compose("+workload=uniform", "workload.num_requests=2")).config
    config.executor.name = "model"
    assert ignored(config, ["software=ideal"]) == [
        "software=ideal is not read by executor=model: its clock is the wall's"
    ]


# -- a run -------------------------------------------------------------------------------------
RUN = ("+workload=sharegpt", "workload.num_requests=40", "allocator=[paged]", "report=none",
       "kv_tokens=20000")  # fmt: skip


def serve(tmp_path, *overrides):
    prepared = prepare(compose(*RUN, *overrides))
    (log,) = run_comparison(prepared, tmp_path / "run").logs
    return log


def test_delays_move_what_clients_see_and_nothing_else(tmp_path):
    plain = serve(tmp_path, "workload.rate=null")
    moved = serve(tmp_path, "workload.rate=null", "software.request_us=2e6",
                  "software.response_us=5e5")  # fmt: skip
    assert len(plain.timeline["step"]) == len(moved.timeline["step"])
    for name, later_s in (("arrival_s", 0.0), ("first_scheduled_s", 2.0), ("first_token_s", 2.5),
                          ("finish_s", 2.5)):  # fmt: skip
        change_s = moved.requests[name] - plain.requests[name]
        np.testing.assert_allclose(change_s, later_s, atol=1e-9)


def test_a_closed_loop_goes_on_when_the_client_has_seen_the_end(tmp_path):
    log = serve(tmp_path, "workload.arrivals=closed_loop", "workload.concurrency=1",
                "software.request_us=1e6", "software.response_us=1e6")  # fmt: skip
    arrival_s, finish_s = log.requests["arrival_s"], log.requests["finish_s"]
    np.testing.assert_array_equal(arrival_s[1:], finish_s[:-1])
    assert (log.requests["first_scheduled_s"] >= arrival_s + 1.0).all()


@pytest.mark.parametrize("engine", ["continuous", "chunked"])
def test_skipping_ahead_keeps_its_bits_with_a_profile(tmp_path, engine):
    options = ("workload.rate=4", f"engine={engine}", "software=vllm-v1")
    fast = serve(tmp_path, *options)
    slow = serve(tmp_path, *options, "engine.skip_ahead=false")
    for name, column in slow.timeline.items():
        assert fast.timeline[name].tobytes() == column.tobytes(), name
    for name in ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s"):
        assert fast.requests[name].tobytes() == slow.requests[name].tobytes()


def test_planning_ahead_lets_a_request_wait_for_one_step_more(tmp_path):
    """What comes while a step runs is in the step after the next; after an idle time at once."""
    log = serve(tmp_path, "workload.rate=4", "engine=chunked", "software=ideal",
                "software.overlapped=true")  # fmt: skip
    starts_s, ends_s = log.timeline["start_s"], log.timeline["time_s"]
    for sent_s, scheduled_s in zip(
        log.requests["arrival_s"], log.requests["first_scheduled_s"], strict=True
    ):
        at = int(np.searchsorted(ends_s, sent_s))
        running = starts_s[at] < sent_s
        assert scheduled_s == starts_s[at + 2 if running and starts_s[at + 1] == ends_s[at]
                                       else at + 1 if running else at]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        "software.step_us=-1",
        "software.sequence_us=nan",
        "software.request_us=1e12",
        "software.all_reduce_slowdown=0",
    ],
)
def test_a_constant_that_cannot_be_is_one_line(bad):
    with pytest.raises(ConfigError) as caught:
        prepare(compose(*RUN, bad))
    assert str(caught.value).startswith(bad.partition("=")[0])
    assert "\n" not in str(caught.value)
