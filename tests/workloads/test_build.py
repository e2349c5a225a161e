"""build(): determinism, independent streams, arrivals, shared prefixes, shipped options."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf

from tests.places import CONF, ROOT
from workloads import LengthSpec, WorkloadError, WorkloadSpec, build

WORKLOADS = CONF / "workload"
OPTIONS = [
    *("agentic", "alpaca", "beam", "conversation", "long_context", "parallel"),
    *("shared_prefix", "sharegpt", "trace", "uniform"),
]


def spec(**changes):
    base = WorkloadSpec(
        num_requests=2000,
        prompt=LengthSpec("lognormal", mean=100.0, sigma=1.0, high=1024),
        output=LengthSpec("uniform", low=5, high=50),
    )
    return dataclasses.replace(base, **changes)


def same_lengths(a, b):
    n = min(len(a), len(b))
    return (a.prompt_tokens[:n] == b.prompt_tokens[:n]).all() and (
        a.output_tokens[:n] == b.output_tokens[:n]
    ).all()


def test_one_seed_gives_one_table_and_another_seed_another():
    a, b, c = build(spec(rate=2.0), 3), build(spec(rate=2.0), 3), build(spec(rate=2.0), 4)
    assert same_lengths(a, b)
    assert (a.arrival_s == b.arrival_s).all()
    assert not same_lengths(a, c)
    assert (a.arrival_s != c.arrival_s).any()


def test_rate_and_number_do_not_change_the_lengths():
    slow, fast, more = build(spec(rate=1.0)), build(spec(rate=4.0)), build(spec(num_requests=3000))
    assert same_lengths(slow, fast)
    assert same_lengths(slow, more)
    assert slow.arrival_s == pytest.approx(4 * fast.arrival_s)


def test_prompt_output_and_arrivals_are_uncorrelated():
    requests = build(spec(prompt=LengthSpec("uniform", high=99), rate=1.0, num_requests=20_000))
    gaps = np.diff(requests.arrival_s)
    columns = np.array([requests.prompt_tokens[1:], requests.output_tokens[1:], gaps])
    off_diagonal = np.corrcoef(columns)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 0.03


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_have_the_mean_and_variation_asked_for(burstiness):
    requests = build(spec(rate=5.0, burstiness=burstiness, num_requests=40_000))
    gaps = np.diff(requests.arrival_s)
    assert requests.arrival_s[0] == 0
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(0.2, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


def test_no_rate_and_infinite_rate_arrive_at_once():
    for rate in (None, math.inf):
        assert not build(spec(rate=rate)).arrival_s.any()


def test_closed_loop_carries_its_concurrency():
    assert build(spec(concurrency=8)).concurrency == 8
    assert build(spec()).concurrency is None


def test_shared_prefix_is_added_to_the_prompt_and_follows_its_popularity():
    requests = build(spec(prefix_tokens=40, num_prefixes=3, prefix_zipf=1.0, num_requests=22_000))
    plain = build(spec(num_requests=22_000))
    assert (requests.prompt_tokens == plain.prompt_tokens + 40).all()
    share = np.bincount(requests.prefix_id) / len(requests)
    assert share == pytest.approx(np.array([6, 3, 2]) / 11, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": -1.0}, "workload.rate=-1.0 is not allowed; expected a number > 0"),
        ({"rate": 0.0}, "workload.rate=0.0"),
        ({"rate": math.nan}, "workload.rate=nan"),
        ({"burstiness": 0.0}, "workload.burstiness=0.0"),
        ({"num_requests": 0}, "workload.num_requests=0"),
        ({"num_requests": None}, "workload.num_requests is needed"),
        ({"concurrency": 0}, "workload.concurrency=0"),
        ({"concurrency": 4, "rate": 1.0}, "leave out workload.rate"),
        ({"arrivals": "closed_loop"}, "needs workload.concurrency"),
        ({"arrivals": "gama"}, "did you mean gamma"),
        ({"arrivals": "poisson"}, "needs workload.rate"),
        ({"arrivals": "poisson", "rate": 1.0, "burstiness": 2.0}, "arrivals=gamma"),
        ({"arrivals": "trace"}, "needs a trace"),
        ({"arrivals": "all_at_once", "rate": 3.0}, "drop workload.rate=3"),
        ({"too_long": "drop"}, "workload.too_long='drop' is unknown"),
        ({"kind": "trace"}, "workload.path=FILE is needed"),
        ({"prefix_tokens": -1}, "workload.prefix_tokens=-1"),
        ({"num_prefixes": 0, "prefix_tokens": 3}, "workload.num_prefixes=0"),
        ({"path": "nowhere.csv"}, "nowhere.csv: cannot be read: No such file"),
        ({"path": "x.csv", "format": "azur"}, "did you mean azure"),
    ],
)
def test_bad_workloads_are_one_clear_line(changes, message):
    with pytest.raises(WorkloadError) as caught:
        build(spec(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_negative_seed_is_refused():
    with pytest.raises(WorkloadError, match="seed=-1"):
        build(spec(), -1)


def test_trace_times_are_kept_replaced_or_scaled(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("timestamp_ms,prompt_length,output_length\n500,1,1\n1500,2,2\n4500,3,3\n")
    trace = WorkloadSpec(kind="trace", path=str(file))

    def times(**changes):
        return list(build(dataclasses.replace(trace, **changes)).arrival_s)

    assert times() == [0.0, 1.0, 4.0]
    assert times(rate=math.inf) == [0.0, 0.0, 0.0]
    assert times(rate=1.0, arrivals="trace") == [0.0, 0.5, 2.0]
    assert times(arrivals="all_at_once") == [0.0, 0.0, 0.0]
    assert times(rate=1.0) != times()
    assert times(num_requests=2) == [0.0, 1.0]
    with pytest.raises(WorkloadError, match=r"num_requests=4, but .*t.csv has 3 requests"):
        times(num_requests=4)


def test_a_path_replaces_generated_lengths_and_says_so(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("num_prefill_tokens,num_decode_tokens\n5,6\n")
    requests = build(spec(path=str(file), num_requests=None))
    assert list(requests.prompt_tokens) == [5]
    assert "are not used" in requests.notes[-1]


@pytest.mark.parametrize("name", OPTIONS)
def test_shipped_option_fits_the_schema_and_builds(name):
    text = (WORKLOADS / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    document = OmegaConf.create(text)
    assert set(document) <= {"workload", "sampling"}
    merged = OmegaConf.merge(OmegaConf.structured(WorkloadSpec), document.workload)
    option = OmegaConf.to_object(merged)
    assert isinstance(option, WorkloadSpec)
    assert option.name == name
    assert option.source
    if option.kind == "trace":
        with pytest.raises(WorkloadError, match=r"workload\.path=FILE.* is needed"):
            build(option)
    else:
        assert len(build(option)) == option.num_requests


def test_every_shipped_option_is_listed_here():
    assert sorted(file.stem for file in WORKLOADS.glob("*.yaml")) == OPTIONS


def test_infinite_rate_is_accepted_by_the_schema():
    merged = OmegaConf.merge(OmegaConf.structured(WorkloadSpec), OmegaConf.create("rate: .inf"))
    assert merged.rate == math.inf


def test_importing_the_package_stays_light():
    code = (
        "import sys, workloads; "
        "print([m for m in ('torch', 'pandas', 'harness', 'omegaconf') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert printed.stdout.strip() == "[]"
