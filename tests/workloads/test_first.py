"""Only the first requests of a trace: no more is read than they take, and the same comes out."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import WorkloadError, WorkloadSpec, build, read

MOON = '{"timestamp": %s, "input_length": %s, "output_length": 5, "hash_ids": []}\n'
CONTENT = {
    "mooncake": "".join(MOON % (t, 3 + t) for t in range(6)),
    "bailian": "".join(
        json.dumps({"chat_id": t, "timestamp": t, "input_length": 4 + t, "output_length": 1,
                    "hash_ids": [t]}) + "\n" for t in range(6)),
    "token_ids": "".join(
        json.dumps({"id": f"q{t}", "prompt_token_ids": [t, 7], "output_len": 2}) + "\n"
        for t in range(6)),
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
        f"2023-11-16 18:15:4{t}.5,{t + 2},3\n" for t in range(6)),
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "".join(
        f"{t},m,{t + 1},{t % 2},0,x\n" for t in range(10)),
    "lengths": "num_prefill_tokens,num_decode_tokens\n" + "".join(
        f"{t + 1},2\n" for t in range(6)),
    "sharegpt": json.dumps([
        {"id": t, "conversations": [{"from": "human", "value": "a" * (t + 1)},
                                    {"from": "gpt", "value": "b"}]} for t in range(6)]),
    "kv_cache_tester": json.dumps({
        "id": "s", "block_size": 4,
        "requests": [{"t": t, "in": 9, "out": 1, "hash_ids": []} for t in range(6)]}),
}  # fmt: skip
BY_LINE = [name for name in CONTENT if name not in ("sharegpt", "kv_cache_tester")]


def columns(table):
    return [
        list(table.arrival_s),
        list(table.prompt_tokens),
        list(table.output_tokens),
        table.ids,
        None if table.hash_ids is None else [list(ids) for ids in table.hash_ids],
    ]


@pytest.mark.parametrize("name", CONTENT)
def test_the_first_requests_are_those_of_the_whole(tmp_path, name):
    path = tmp_path / "trace"
    path.write_text(CONTENT[name])
    whole = read(path, name)
    for first in (1, 3, len(whole), len(whole) + 9):
        part = read(path, name, first)
        assert len(part) == min(first, len(whole))
        assert columns(part) == columns(whole.take(np.arange(len(part))))


@pytest.mark.parametrize("name", BY_LINE)
def test_what_follows_is_not_read_and_what_is_read_keeps_its_line_number(tmp_path, name):
    path = tmp_path / "trace"
    bad = "{not a request\n"
    path.write_text(CONTENT[name] + bad)
    count = 6 if name != "burstgpt" else 5
    assert len(read(path, name, count)) == count
    line = (CONTENT[name] + bad).count("\n")
    with pytest.raises(WorkloadError, match=rf"trace:{line}: "):
        read(path, name, count + 1)
    with pytest.raises(WorkloadError, match=rf"trace:{line}: "):
        read(path, name)


def test_the_rest_of_a_damaged_archive_does_not_matter(tmp_path):
    path = tmp_path / "trace.gz"
    packed = gzip.compress("".join(MOON % (t, 3 + t * 7919 % 1000) for t in range(20_000)).encode())
    path.write_bytes(packed[: len(packed) // 2])
    assert len(read(path, first=5)) == 5
    with pytest.raises(WorkloadError, match="gzip data ends early"):
        read(path)


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.integers(0, 5), min_size=1, max_size=9), first=st.integers(1, 10))
def test_lines_out_of_order_among_the_first_make_it_read_on(tmp_path_factory, times, first):
    # As far as it shows: a line that belongs before the ones already read is only found where
    # those were out of order too, or were not enough.
    path = tmp_path_factory.mktemp("t") / "trace"
    path.write_text("".join(MOON % (t, 1 + i) for i, t in enumerate(times)))
    whole, part = read(path), read(path, first=first)
    read_on = len(times) <= first or sorted(times[:first]) != times[:first]
    if read_on or sorted(times) == times:
        assert columns(part) == columns(whole.take(np.arange(min(first, len(times)))))
    else:
        assert list(part.prompt_tokens) == list(range(1, first + 1))


def test_too_few_requests_are_counted_exactly(tmp_path):
    path = tmp_path / "trace"
    path.write_text(CONTENT["burstgpt"])
    with pytest.raises(WorkloadError, match=r"num_requests=6, but .*trace has 5 requests"):
        build(WorkloadSpec(kind="trace", path=str(path), num_requests=6))
    assert len(build(WorkloadSpec(kind="trace", path=str(path), num_requests=5))) == 5


@pytest.mark.parametrize(
    "content",
    [
        "timestamp_s,prompt_length,output_length\n1,1,1\n2,2,1\n0,3,1\n",
        "".join(
            json.dumps({"id": str(n), "prompt_token_ids": [n] * n, "output_len": 1, "timestamp": t})
            + "\n"
            for t, n in ((1, 1), (2, 2), (0, 3))
        ),
    ],
)
def test_a_list_of_ones_own_with_times_is_read_whole(tmp_path, content):
    path = tmp_path / "trace"
    path.write_text(content)
    assert list(read(path, first=2).prompt_tokens) == [3, 1]
