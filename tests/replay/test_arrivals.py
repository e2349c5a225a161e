"""When requests arrive where the file does not say, and what is said of it."""

import math

import numpy as np
import pytest

from harness.replay.errors import ReplayError
from tests.replay.files import altered, measured

OLD = "vllm_benchmark_serving_2025.json"


@pytest.mark.parametrize(("burstiness", "rate", "seed"), [(1.0, 8.0, 0), (0.5, 3.0, 7)])
def test_drawn_arrivals_are_the_client_s(burstiness, rate, seed):
    np.random.seed(seed)  # noqa: NPY002  what the client calls, a gap before each request
    now, expected = 0.0, [0.0]
    for _ in range(2):
        now += np.random.gamma(shape=burstiness, scale=1 / (rate * burstiness))  # noqa: NPY002
        expected.append(now)
    run = measured(OLD, kind="drawn", rate=rate, burstiness=burstiness, seed=seed)
    np.testing.assert_allclose(run.arrival_s, expected)


def test_the_file_s_own_rate_is_taken(tmp_path):
    assert measured(OLD, kind="drawn").arrival_s.tolist() == (
        measured(OLD, kind="drawn", rate=8.0, burstiness=1.0).arrival_s.tolist()
    )
    endless = altered(tmp_path, OLD, lambda d: d.update(request_rate=math.inf))
    run = measured(endless, kind="drawn")
    assert run.rate == math.inf
    assert run.arrival_s.tolist() == [0.0, 0.0, 0.0]
    unsaid = altered(tmp_path, OLD, lambda d: d.update(request_rate="trace"))
    with pytest.raises(ReplayError, match="does not say its request rate; state rate=N"):
        measured(unsaid, kind="drawn")


def test_a_draw_that_cannot_be_that_of_the_run_is_said(tmp_path):
    path = altered(tmp_path, OLD, lambda d: d.update(duration=0.5))
    assert any("but the client's run took 0.5 s" in n for n in measured(path, kind="drawn").notes)
    end_s = measured(OLD, kind="drawn").span_s
    path = altered(tmp_path, OLD, lambda d: d.update(duration=end_s * 1.001))
    assert not any("took" in note for note in measured(path, kind="drawn").notes)


def test_failed_requests_keep_their_place_in_the_draw(tmp_path):
    def second_fails(document):
        document["errors"][1] = "lost"

    all_of, some = measured(OLD, kind="drawn"), altered(tmp_path, OLD, second_fails)
    kept = measured(some, kind="drawn").arrival_s
    assert kept.tolist() == [all_of.arrival_s[0], all_of.arrival_s[2]]


def test_a_closed_loop_is_stated():
    with pytest.raises(ReplayError, match="state concurrency=N"):
        measured(OLD, kind="closed_loop")
    run = measured(OLD, kind="closed_loop", concurrency=2)
    assert (run.concurrency, run.arrival_s, run.span_s) == (2, None, 0.52)
    timed = measured("plain.csv", kind="closed_loop", concurrency=2)
    assert timed.arrival_s.tolist() == [0.0, 0.2, 0.25]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"kind": "soon"}, "arrivals must be one of file, drawn, all_at_once, closed_loop"),
        ({"rate": 2.0}, "rate=2.0 is an option of arrivals=drawn"),
        ({"kind": "drawn", "concurrency": 2}, "concurrency=2 is an option of arrivals=closed_loop"),
        ({"kind": "closed_loop", "concurrency": 0}, "concurrency must be at least 1"),
        ({"kind": "drawn", "rate": 0.0}, "must be positive"),
        ({"kind": "drawn", "rate": -1.0}, "must be positive"),
        ({"kind": "drawn", "rate": math.nan}, "must be positive"),
        ({"kind": "drawn", "burstiness": 0.0}, "must be positive"),
        ({"kind": "drawn", "seed": -1}, "arrivals_seed must be from 0"),
    ],
)
def test_what_may_be_stated(stated, said):
    with pytest.raises(ReplayError, match=said):
        measured(OLD, **stated)
