"""Requests that come after others: arrival times, order, windows, and what skipping one means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine.arrivals import NO_MORE, Arrivals
from tests.workloads.serving import POLICIES, same, serve, table
from workloads import WorkloadError

THINKS = (0.0, 0.01, 0.25, 3.0)


@st.composite
def forests(draw, most=14):
    """Requests of which some come after an earlier one; some at the same time, some in parallel."""
    n = draw(st.integers(1, most))
    after = [draw(st.integers(-1, i - 1)) for i in range(n)]
    think = [draw(st.sampled_from(THINKS)) if a >= 0 else 0.0 for a in after]
    lengths = st.lists(st.integers(1, 60), min_size=n, max_size=n)
    starts = st.lists(st.sampled_from((0.0, 0.02, 1.0)), min_size=n, max_size=n)
    concurrency = draw(st.one_of(st.none(), st.integers(1, 3)))
    times = np.sort(draw(starts))
    return table(
        draw(lengths), draw(lengths), after, think, arrival_s=times, concurrency=concurrency
    )


def expected_arrivals(requests, finish_s):
    arrival = requests.arrival_s.copy()
    later = requests.after >= 0
    arrival[later] = finish_s[requests.after[later]] + requests.think_s[later]
    return arrival


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12, deadline=None)
@given(requests=forests())
def test_a_dependant_arrives_its_think_time_after_the_end_to_the_bit(policy, requests):
    log = serve(requests, policy=policy)
    r = log.requests
    assert list(r["request"]) == list(range(len(requests)))
    want = expected_arrivals(requests, r["finish_s"])
    rows = requests.after >= 0 if requests.concurrency else slice(None)
    assert list(r["arrival_s"][rows]) == list(want[rows])
    assert (r["first_scheduled_s"] >= r["arrival_s"]).all()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("index", ["none", "hash"])
@settings(max_examples=12, deadline=None)
@given(requests=forests(), keep=st.booleans())
def test_steps_run_in_one_go_change_nothing(policy, index, requests, keep):
    requests.keeps_history = keep
    assert same(*(serve(requests, skip, policy, index) for skip in (True, False)))


def test_windows_are_cut_at_arrivals_that_became_known_on_the_way():
    # Request 1 runs long while 2 arrives in the middle of it, and 3 after that.
    requests = table([4, 4, 4, 4], [2, 400, 30, 2], [-1, -1, 0, 2], [0, 0, 0.002, 0.001])
    fast, slow = (serve(requests, skip, pool_tokens=2000) for skip in (True, False))
    assert same(fast, slow)
    r = fast.requests
    assert r["finish_s"][0] < r["arrival_s"][2] < r["finish_s"][2] < r["finish_s"][1]
    # Admitted at the end of the step in which it arrived.
    assert (r["first_scheduled_s"][2] - r["arrival_s"][2]) < 2 * r["finish_s"][1] / 400


class Slow:
    """What Arrivals promises, by looking at everything every time."""

    def __init__(self, requests):
        self.requests, self.known, self.handed, self.over = requests, {}, set(), set()
        for i in requests.roots.tolist():
            if requests.concurrency is None:
                self.known[i] = float(requests.arrival_s[i])
        self._release(0.0)

    def _release(self, now_s):
        if self.requests.concurrency is None:
            return
        root, over = self.requests.root_of(), self.over
        roots = self.requests.roots.tolist()
        members = {i: set(np.flatnonzero(root == i).tolist()) for i in roots}
        while True:
            flying = [i for i in roots if i in self.known and not members[i] <= over]
            held = [i for i in roots if i not in self.known]
            if len(flying) >= self.requests.concurrency or not held:
                return
            self.known[held[0]] = now_s

    def due(self, now_s):
        found = sorted((t, i) for i, t in self.known.items() if t <= now_s and i not in self.handed)
        self.handed |= {i for _, i in found}
        return [(i, t) for t, i in found]

    def next_s(self):
        return min((t for i, t in self.known.items() if i not in self.handed), default=NO_MORE)

    def unseen_by(self, times_s):
        left = [t for i, t in self.known.items() if i not in self.handed]
        return [sum(t <= until for t in left) for until in times_s]

    def ended(self, now_s, indices):
        for index in indices:
            self.over.add(index)
            for child in np.flatnonzero(self.requests.after == index).tolist():
                self.known[child] = now_s + float(self.requests.think_s[child])
            self._release(now_s)


@settings(max_examples=150, deadline=None)
@given(requests=forests(most=8), data=st.data())
def test_arrivals_agree_with_looking_at_everything(requests, data):
    fast, slow = Arrivals(requests), Slow(requests)
    now, running, handed = 0.0, [], 0
    while handed < len(requests) or running:
        arrived = fast.due(now)
        assert arrived == slow.due(now)
        running += [i for i, _ in arrived]
        handed += len(arrived)
        assert fast.next_s() == slow.next_s()
        times = now + np.array([0.001, 0.25, 0.25, 1.0, 5.0])
        assert list(fast.unseen_by(times)) == slow.unseen_by(times)
        if not running:
            now = fast.next_s() if handed < len(requests) else now
            continue
        now += data.draw(st.sampled_from((0.0, 0.01, 0.5)))
        ending = data.draw(st.sets(st.sampled_from(running), min_size=1))
        running = [i for i in running if i not in ending]
        fast.ended(now, ending)
        slow.ended(now, ending)


def test_arrivals_at_the_same_time_come_by_index():
    requests = table([1] * 5, [1] * 5, [-1, -1, 1, 0, -1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 3])
    arrivals = Arrivals(requests)
    assert arrivals.due(0.0) == [(0, 0.0), (1, 0.0)]
    arrivals.ended(2.0, [1, 0])
    assert arrivals.next_s() == 3.0
    assert list(arrivals.unseen_by(np.array([2.9, 3.0, 9.0]))) == [0, 3, 3]
    assert arrivals.due(9.0) == [(2, 3.0), (3, 3.0), (4, 3.0)]
    assert arrivals.next_s() == NO_MORE


def test_a_closed_loop_holds_so_many_conversations():
    n = 12
    after = [-1 if i % 3 == 0 else i - 1 for i in range(n)]
    requests = table([8] * n, [9] * n, after, [0.0 if a < 0 else 0.5 for a in after], concurrency=2)
    r = serve(requests).requests
    start, end = r["arrival_s"][::3], r["finish_s"][2::3]
    assert list(start[:2]) == [0.0, 0.0]
    assert set(start[2:]) <= set(end)
    assert max(((start <= t) & (t < end)).sum() for t in start) == 2


def test_a_skipped_request_takes_all_that_come_after_it_along():
    requests = table(
        [5, 90, 5, 5, 5, 5], [5] * 6, [-1, 0, 1, 2, -1, 4], [0, 1, 2, 3, 0, 5], ids=list("abcdef")
    )
    kept = requests.limit(50, "skip")
    assert kept.ids == ["a", "e", "f"]
    assert list(kept.after) == [-1, -1, 1]
    assert list(kept.think_s) == [0, 0, 5]
    assert kept.notes == [
        "1 of 6 requests longer than max_len=50 tokens were skipped",
        "2 requests that come after a skipped one were skipped with it",
    ]
    assert list(requests.limit(50, "truncate").after) == list(requests.after)
    with pytest.raises(WorkloadError, match="leaves no request"):
        table([90, 5], [1, 1], [-1, 0]).limit(50, "skip")


@settings(max_examples=100, deadline=None)
@given(requests=forests(), data=st.data())
def test_taking_rows_keeps_whole_chains_and_their_links(requests, data):
    requests.ids = [f"r{i}" for i in range(len(requests))]
    rows = sorted(data.draw(st.sets(st.integers(0, len(requests) - 1))))
    kept = requests.take(np.array(rows, dtype=np.int64))

    def chain(table, i):
        names = []
        while i >= 0:
            names.append(table.name(i))
            i = int(table.after[i])
        return names

    whole = [i for i in rows if {int(name[1:]) for name in chain(requests, i)} <= set(rows)]
    assert [chain(kept, k) for k in range(len(kept))] == [chain(requests, i) for i in whole]
    assert [kept.think_s[k] for k in range(len(kept))] == [requests.think_s[i] for i in whole]
    assert bool(kept.notes) == (len(whole) < len(rows))


def test_the_times_of_dependants_are_the_earliest_possible():
    requests = table([1] * 4, [1] * 4, [-1, 0, 1, -1], [0, 2, 3, 0])
    requests.start_at(np.array([1.0, 4.0]))
    assert list(requests.arrival_s) == [1.0, 3.0, 6.0, 4.0]
    assert list(requests.root_of()) == [0, 0, 0, 3]
    assert list(requests.roots) == [0, 3]


@pytest.mark.parametrize(
    ("after", "think", "message"),
    [
        ([0, -1], [0, 0], "request '0' comes after index 0; expected -1 or an index below its own"),
        ([-1, 2], [0, 0], "request '1' comes after index 2"),
        ([-1, -2], [0, 0], "request '1' comes after index -2"),
        ([-1, 0], [0, -1.0], "not finite and >= 0"),
        ([-1, 0], [0, np.inf], "not finite and >= 0"),
    ],
)
def test_links_that_make_no_sense_are_refused(after, think, message):
    with pytest.raises(WorkloadError, match=message):
        table([1, 1], [1, 1], after, think)


def test_dependent_rows_are_taken_in_order_only():
    requests = table([1, 1], [1, 1], [-1, 0])
    with pytest.raises(WorkloadError, match="rising order"):
        requests.take(np.array([1, 0]))
    assert list(table([1, 2], [1, 1]).take(np.array([1, 0])).prompt_tokens) == [2, 1]
