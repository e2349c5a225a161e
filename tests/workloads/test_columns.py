"""The columns of a user's own list of requests: one that says when they came is never ignored."""

import json

import pytest

from workloads import WorkloadError, build, read
from workloads.spec import ColumnSpec, WorkloadSpec


@pytest.fixture
def lists(tmp_path):
    """A function from the name of a time column to a CSV of two requests, at 2 and 5."""

    def of(arrival, prompt="prompt_tokens", output="output_tokens"):
        path = tmp_path / "requests.csv"
        path.write_text(f"{arrival},{prompt},{output}\n2,10,5\n5,20,6\n")
        return path

    return of


@pytest.mark.parametrize(
    "name",
    ["arrival", "timestamp", "arrival_time", "time", "Timestamp", "arrivalTime", "ts", "start_time",
     "created_at", "request time"],
)  # fmt: skip
def test_a_time_without_a_unit_is_refused_and_the_remedy_works(lists, name):
    path = lists(name)
    with pytest.raises(WorkloadError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}:1: {name!r} seems to say when a request came, but not in which unit; "
        f"workload.columns.arrival={name} workload.columns.arrival_unit=U reads it in "
        "U=s|ms|us|ns, and so does a name that ends in the unit, such as arrival_s"
    )
    requests = read(path, columns=ColumnSpec(arrival=name, arrival_unit="ms"))
    assert requests.arrival_s == pytest.approx([0, 0.003])
    assert read(path, columns=ColumnSpec(arrival=name)).arrival_s == pytest.approx([0, 3])


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("arrival_s", 3), ("arrival_time_ms", 3e-3), ("arrivalTimeMs", 3e-3), ("Arrival time (s)", 3),
     ("timestamp_us", 3e-6), ("time_ns", 3e-9), ("time_in_seconds", 3)],
)  # fmt: skip
def test_a_time_with_its_unit_is_read(lists, name, seconds):
    requests = read(lists(name))
    assert requests.timed
    assert requests.arrival_s == pytest.approx([0, seconds])
    assert not requests.notes


@pytest.mark.parametrize("name", ["decode_time_ms", "user", "ttft", "latency_s", "model"])
def test_what_is_not_read_is_named(lists, name):
    requests = read(lists(name))
    assert not requests.timed
    assert requests.notes[0].endswith(f"columns that are not read: {name}")


def test_of_two_times_one_must_be_chosen(lists):
    path = lists("arrival_s,start_s")
    path.write_text("arrival_s,start_s,prompt_tokens,output_tokens\n2,3,10,5\n4,9,20,6\n")
    with pytest.raises(WorkloadError, match="arrival_s, start_s: which of them says when"):
        read(path)
    requests = read(path, columns=ColumnSpec(arrival="start_s"))
    assert list(requests.arrival_s) == [0, 6]


def test_all_columns_can_be_named(lists):
    path = lists("when", "question", "answer")
    with pytest.raises(WorkloadError, match=r"workload\.columns="):
        read(path)
    columns = ColumnSpec(arrival="when", prompt="question", output="answer")
    requests = build(WorkloadSpec(kind="trace", path=str(path), columns=columns))
    assert list(requests.arrival_s) == [0, 3]
    assert list(requests.prompt_tokens) == [10, 20]
    assert list(requests.output_tokens) == [5, 6]


@pytest.mark.parametrize(
    ("prompt", "output"),
    [("prompt_tokens", "n_out"), ("n_in", "output_tokens"), ("n_in", "output_length"),
     ("num_prefill_tokens", "n_out")],
)  # fmt: skip
def test_what_is_not_named_keeps_its_name(lists, prompt, output):
    columns = ColumnSpec(
        prompt="n_in" if prompt == "n_in" else None, output="n_out" if output == "n_out" else None
    )
    requests = read(lists("arrival_s", prompt, output), columns=columns)
    assert list(requests.arrival_s) == [0, 3]
    assert list(requests.prompt_tokens) == [10, 20]
    assert list(requests.output_tokens) == [5, 6]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (ColumnSpec(arrival="wen"), "no column wen; the header is when,prompt_tokens"),
        (ColumnSpec(prompt="x"), "no column x"),
        (ColumnSpec(arrival="when", arrival_unit="h"), "workload.columns.arrival_unit='h'"),
        (ColumnSpec(arrival_unit="s"), "needs workload.columns.arrival=NAME"),
    ],
)
def test_a_wrong_name_is_one_line(lists, columns, message):
    with pytest.raises(WorkloadError) as caught:
        read(lists("when"), columns=columns)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_twice_is_refused(lists):
    with pytest.raises(WorkloadError, match="column arrival_s more than once"):
        read(lists("arrival_s,arrival_s"), columns=ColumnSpec(arrival="arrival_s"))


def test_the_columns_of_another_format_cannot_be_named(tmp_path):
    path = tmp_path / "conversations.json"
    path.write_text("[]")
    with pytest.raises(WorkloadError, match="is read as sharegpt"):
        read(path, columns=ColumnSpec(prompt="x"))
    with pytest.raises(WorkloadError, match="is read as azure"):
        read(path, "azure", columns=ColumnSpec(prompt="x"))
    with pytest.raises(WorkloadError, match="is read as kv_cache_tester"):
        read(tmp_path, columns=ColumnSpec(prompt="x"))


def token_ids(path, **more):
    lines = [
        {"id": i, "prompt_token_ids": [i, i], "output_len": 1, **{k: v[i] for k, v in more.items()}}
        for i in range(2)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_time_of_token_ids_under_another_name_is_refused_or_read(tmp_path):
    path = token_ids(tmp_path / "ids.jsonl", arrival_time=[2, 5])
    with pytest.raises(WorkloadError, match="'arrival_time' seems to say when a request came"):
        read(path)
    named = read(path, columns=ColumnSpec(arrival="arrival_time", arrival_unit="ms"))
    assert named.arrival_s == pytest.approx([0, 0.003])
    clear = read(token_ids(tmp_path / "clear.jsonl", arrival_ms=[2, 5]))
    assert clear.arrival_s == pytest.approx([0, 0.003])


def test_a_named_time_must_be_in_every_line(tmp_path):
    path = token_ids(tmp_path / "ids.jsonl")
    with pytest.raises(WorkloadError, match=":1: no 'sent'; the keys are id, "):
        read(path, columns=ColumnSpec(arrival="sent"))


def test_keys_of_token_ids_can_be_named(tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text('{"id": "a", "tokens": [7, 8], "max_tokens": 3}\n')
    requests = read(path, columns=ColumnSpec(prompt="tokens", output="max_tokens"))
    assert [list(ids) for ids in requests.token_ids] == [[7, 8]]
    assert list(requests.output_tokens) == [3]


def test_a_timestamp_of_token_ids_stays_in_seconds_where_other_keys_are_named(tmp_path):
    path = token_ids(tmp_path / "ids.jsonl", timestamp=[2, 5], tokens=[[7], [8]])
    assert list(read(path, columns=ColumnSpec(prompt="tokens")).arrival_s) == [0, 3]
    in_ms = read(path, columns=ColumnSpec(arrival="timestamp", arrival_unit="ms"))
    assert in_ms.arrival_s == pytest.approx([0, 0.003])
    with pytest.raises(WorkloadError, match=r"needs workload\.columns\.arrival=NAME"):
        read(path, columns=ColumnSpec(arrival_unit="ms"))
