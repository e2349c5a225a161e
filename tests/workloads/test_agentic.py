"""Recorded agents: which request waits for which, at what distance, and what they share."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tests.places import CONF
from tests.workloads.serving import serve
from workloads import WorkloadError, WorkloadSpec, build, read
from workloads.formats.chains import Leaf, chain


def step(t, prompt=8, output=2, ids=(), took=None):
    request = {"t": t, "type": "n", "in": prompt, "out": output, "hash_ids": list(ids)}
    return request if took is None else {**request, "api_time": took}


def agent(end, duration, requests):
    return {"t": end, "type": "subagent", "duration_ms": duration * 1000, "requests": requests}


@pytest.fixture
def write(tmp_path):
    def to(requests, name="s"):
        document = {"id": name, "block_size": 4, "hash_id_scope": "local", "requests": requests}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        return path

    return to


def links(table):
    return {
        table.name(i): (table.name(a) if a >= 0 else None, pytest.approx(float(table.think_s[i])))
        for i, a in enumerate(table.after.tolist())
    }


def agentic(path, **changes):
    option = OmegaConf.load(CONF / "workload" / "agentic.yaml").workload
    merged = OmegaConf.merge(OmegaConf.structured(WorkloadSpec), option, changes)
    merged.path = None if path is None else str(path)
    return OmegaConf.to_object(merged)


# The parent, two sub-agents beside each other, one of them ending later, and one that outlives
# the parent's next request.
SESSION = [
    step(0.0, took=4.0),
    agent(11.0, 6.0, [step(0.0, took=1.0), step(3.0, took=2.5)]),
    agent(14.0, 9.0, [step(0.0, took=1.0), step(2.0, took=6.0)]),
    agent(90.0, 85.0, [step(0.0, took=80.0), step(82.0)]),
    step(20.0),
    step(31.0, took=2.0),
]


def test_a_parent_goes_on_after_the_last_sub_agent_that_had_ended(write):
    table = read(write(SESSION), conversations=True)
    assert links(table) == {
        "s/0": (None, 0.0),
        "s/1/0": ("s/0", 1.0),  # started at 11 - 6 = 5, the parent's request had ended at 4
        "s/1/1": ("s/1/0", 2.0),
        "s/2/0": ("s/0", 1.0),
        "s/2/1": ("s/2/0", 1.0),
        "s/3/0": ("s/0", 1.0),
        "s/3/1": ("s/3/0", 2.0),
        "s/4": ("s/2/1", 7.0),  # 20 - 13; the third sub-agent was in the background
        "s/5": ("s/4", 11.0),  # how long s/4 took is not recorded: from its start
    }
    assert sorted(table.arrival_s) == [0.0, 5.0, 5.0, 5.0, 7.0, 8.0, 20.0, 31.0, 87.0]


def test_recorded_times_depend_on_nothing(write):
    table = read(write(SESSION))
    assert table.after is None
    built = build(agentic(write(SESSION)))
    assert built.after is None
    assert built.timed
    assert list(built.arrival_s) == list(table.arrival_s)


def test_requests_left_out_are_stepped_over(write):
    table = read(write([step(0, took=1.0), step(5, prompt=0), step(9)]), conversations=True)
    assert links(table) == {"s/0": (None, 0.0), "s/2": ("s/0", 8.0)}


def test_a_sub_agent_of_a_sub_agent_and_one_before_any_request(write):
    inner = agent(4.0, 2.0, [step(0.0, took=1.0)])
    table = read(
        write([agent(9.0, 9.0, [step(0, took=1.0), inner, step(6.0)]), step(10.0)]),
        conversations=True,
    )
    assert links(table) == {
        "s/0/0": (None, 0.0),
        "s/0/1/0": ("s/0/0", 1.0),
        "s/0/2": ("s/0/1/0", 3.0),
        "s/1": (None, 0.0),  # the session's own first request waits for nothing
    }


def test_dependent_sessions_run_at_their_own_pace_here(write):
    requests = build(agentic(write(SESSION), pace="dependent"))
    r = serve(requests, pool_tokens=320).requests
    later = requests.after >= 0
    want = r["finish_s"][requests.after[later]] + requests.think_s[later]
    assert list(r["arrival_s"][later]) == list(want)
    names = {name: i for i, name in enumerate(requests.ids)}
    beside = [names[name] for name in ("s/1/0", "s/2/0", "s/3/0")]
    assert list(r["arrival_s"][beside]) == [r["finish_s"][names["s/0"]] + 1.0] * 3


def test_sessions_start_at_a_rate_or_so_many_at_a_time(write, tmp_path):
    for name in "abcdefgh":
        write(SESSION, name)
    requests = build(agentic(tmp_path, pace="dependent", rate=0.1))
    roots = requests.arrival_s[requests.roots]
    assert len(roots) == 8
    assert roots[0] == 0
    assert (np.diff(roots) > 0).all()
    assert not requests.timed
    closed = build(agentic(tmp_path, pace="dependent", concurrency=2))
    r = serve(closed, pool_tokens=320).requests
    ends = [r["finish_s"][closed.root_of() == root].max() for root in closed.roots]
    begins = r["arrival_s"][closed.roots]
    assert max(sum(b <= t < e for b, e in zip(begins, ends, strict=True)) for t in begins) == 2


def test_too_long_requests_say_what_can_be_done(write):
    path = write([step(0), step(5, prompt=400), step(9), step(12, prompt=9)])
    for pace, kept in (("recorded", ["s/0", "s/2", "s/3"]), ("dependent", ["s/0"])):
        requests = build(agentic(path, pace=pace))
        with pytest.raises(WorkloadError, match=r"'s/1': prompt 400 .*too_long=skip or workload"):
            requests.limit(100)
        assert requests.limit(100, "skip").ids == kept
        assert len(requests.limit(100, "truncate")) == 4


@pytest.mark.parametrize(
    ("changes", "content", "message"),
    [
        ({"path": None}, None, "workload.path=FILE or FOLDER is needed"),
        ({"pace": "dependant"}, [step(0)], "did you mean dependent"),
        ({}, [{**step(0), "api_time": "soon"}], "requests[0]: api_time is 'soon'"),
        ({}, [agent(1, -1, [step(0)])], "requests[0]: duration_ms is -1000"),
        ({"num_requests": 3}, [step(0), step(1)], "num_requests=3, but"),
    ],
)
def test_bad_sessions_are_one_clear_line(write, changes, content, message):
    changes = dict(changes)
    path = None if content is None else write(content)
    changes.pop("path", None)
    with pytest.raises(WorkloadError) as caught:
        build(agentic(path, **changes))
    assert message in str(caught.value).replace(f"{path}:", "")
    assert "\n" not in str(caught.value)


def test_a_pace_needs_a_trace_that_records_sessions(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("timestamp_ms,prompt_length,output_length\n500,1,1\n")
    with pytest.raises(WorkloadError, match=r"does not record which request waited for which"):
        build(WorkloadSpec(kind="trace", path=str(file), pace="dependent"))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_predecessors_start_no_later_and_close_no_circle(data):
    agents = [(), (1,), (2,), (2, 0)]
    leaves = []
    for row in range(data.draw(st.integers(1, 12))):
        start = data.draw(st.integers(0, 6))
        end = start + data.draw(st.integers(0, 4))
        leaves.append(Leaf(row, data.draw(st.sampled_from(agents)), float(start), float(end)))
    before = chain(leaves)
    order = [leaf.row for leaf in sorted(leaves, key=lambda leaf: leaf.start_s)]
    assert sorted(before) == list(range(len(leaves)))
    for row, (found, gap_s) in before.items():
        assert gap_s >= 0
        if found >= 0:
            assert order.index(found) < order.index(row)
            assert gap_s == max(0.0, leaves[row].start_s - leaves[found].end_s)
            own, other = leaves[row].agent, leaves[found].agent
            assert own == other or own == other[:-1] or own[: len(other)] == other


@pytest.mark.shared_data
def test_the_public_sessions_hang_together(public_trace, shared_file):
    table = read(shared_file("kv-cache-tester/traces"), conversations=True)
    plain = public_trace("kv-cache-tester/traces")
    assert (len(table), len(table.roots)) == (3981, 59)
    assert list(plain.arrival_s) == list(table.arrival_s)
    later = np.flatnonzero(table.after >= 0)
    assert (table.arrival_s[table.after[later]] <= table.arrival_s[later]).all()
    for i in later.tolist():
        assert table.name(i).split("/")[0] == table.name(table.after[i]).split("/")[0]
    names = {name: i for i, name in enumerate(table.ids)}
    parallel = [names[f"trace_0276/{k}/0"] for k in (80, 81, 82)]
    assert {table.name(table.after[i]) for i in parallel} == {"trace_0276/79"}
    assert table.name(table.after[names["trace_0276/83"]]) == "trace_0276/82/23"
    # A prompt goes on from the one before it, but for what was edited away or compacted.
    kept = 0
    for i in later.tolist():
        mine, before = table.hash_ids[i], table.hash_ids[table.after[i]]
        n = min(len(mine), len(before))
        kept += bool(n) and bool((mine[: n - 1] == before[: n - 1]).all())
    assert kept / len(later) > 0.9
