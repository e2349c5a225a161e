"""Every trace format: what is read, what is reported, and where a bad line is."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads import FORMATS, WorkloadError, read

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
LENGTHS = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n"
MOON = '{"timestamp": %s, "input_length": %s, "output_length": %s, "hash_ids": %s}\n'
CHAT = (
    '{"chat_id": 4, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 20, '
    '"output_length": 3, "type": "text", "turn": 1, "hash_ids": [5, 6]}\n'
)
REAL = '{"id": "%s", "prompt_token_ids": %s, "output_len": %s}\n'


@pytest.fixture
def write(tmp_path):
    def to(content, name="trace.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to


def session(requests, **changes):
    head = {"id": "s", "block_size": 4, "hash_id_scope": "local"}
    return json.dumps({**head, "requests": requests, **changes})


def step(t, prompt, output, ids):
    return {"t": t, "type": "n", "in": prompt, "out": output, "hash_ids": ids}


def test_azure_keeps_seven_decimals_and_needs_no_last_newline(write):
    requests = read(
        write(AZURE + "2023-11-16 23:59:59.6805900,374,44\n2023-11-17 00:00:00.9951691,396,109")
    )
    assert requests.arrival_s == pytest.approx([0.0, 1.3145791], abs=1e-9)
    assert list(requests.prompt_tokens) == [374, 396]
    assert list(requests.output_tokens) == [44, 109]
    assert requests.timed
    assert requests.prompt_ids(0) is None


def test_azure_with_a_zone_and_windows_line_ends(write):
    text = AZURE + "2024-05-10 00:00:00.009930+00:00,5,6\n2024-05-10 00:00:02+00:00,7,8\n"
    requests = read(write(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    assert requests.arrival_s == pytest.approx([0.0, 1.99007])


def test_burstgpt_leaves_out_failed_requests_and_says_so(write):
    path = write(
        BURST + "5,ChatGPT,472,18,490,Conversation log\n6,GPT-4,9,0,9,API log\n"
        "45,ChatGPT,1087,230,1317,API log\n"
    )
    requests = read(path)
    assert list(requests.arrival_s) == [0.0, 40.0]
    assert list(requests.prompt_tokens) == [472, 1087]
    assert requests.notes == [f"{path}: failed requests skipped, with 0 response tokens: 1"]


def test_mooncake_is_in_milliseconds_and_shares_blocks_of_512(write):
    requests = read(write(MOON % (1000, 600, 5, [0, 1]) + "\n" + MOON % (4000, 513, 6, [0, 7])))
    assert list(requests.arrival_s) == [0.0, 3.0]
    assert requests.hash_block_tokens == 512
    a, b = requests.prompt_ids(0), requests.prompt_ids(1)
    assert (len(a), len(b)) == (600, 513)
    assert (a[:512] == b[:512]).all()
    assert (a[512], b[512]) == (512, 7 * 512)


def test_bailian_is_in_seconds_and_named_by_chat(write):
    requests = read(write(CHAT))
    assert requests.name(0) == "4"
    assert requests.hash_block_tokens == 16
    assert list(requests.prompt_ids(0)[15:18]) == [5 * 16 + 15, 6 * 16, 6 * 16 + 1]


def test_hash_ids_beyond_the_prompt_are_ignored_and_reported(write):
    requests = read(write(MOON % (0, 10, 5, [0, 1, 2])))
    assert [list(ids) for ids in requests.hash_ids] == [[0]]
    assert "more hash_ids than prompt blocks, the rest ignored: 1" in requests.notes[0]


def test_token_ids_are_the_prompt(write):
    requests = read(write(REAL % ("a", [11, 12], 5) + REAL % ("b", [11], 6)))
    assert requests.ids == ["a", "b"]
    assert [list(requests.prompt_ids(i)) for i in range(2)] == [[11, 12], [11]]
    assert list(requests.output_tokens) == [5, 6]
    assert not requests.timed


def test_token_ids_with_timestamps(write):
    lines = [
        {"id": i, "prompt_token_ids": [i], "output_len": 1, "timestamp": t}
        for i, t in enumerate((10.5, 9.5))
    ]
    requests = read(write("".join(json.dumps(line) + "\n" for line in lines)))
    assert requests.timed
    assert list(requests.arrival_s) == [0.0, 1.0]
    assert requests.ids == ["1", "0"]
    assert "sorted by time; earlier than the one before: 1" in requests.notes[0]


def test_kv_cache_tester_unfolds_sub_agents_on_their_parents_clock(write):
    agent = {"t": 7.0, "type": "subagent", "requests": [step(0.0, 5, 2, [1]), step(4.0, 4, 2, [1])]}
    text = session([step(0.0, 10, 3, [1, 2]), agent, step(8.0, 3, 0, [])])
    for content in (text, json.dumps(json.loads(text), indent=2)):
        requests = read(write(content))
        assert list(requests.arrival_s) == [0.0, 7.0, 8.0, 11.0]
        assert requests.ids == ["s/0", "s/1/0", "s/2", "s/1/1"]
        assert list(requests.output_tokens) == [3, 2, 1, 2]
        ids = [requests.prompt_ids(i) for i in range(4)]
        assert list(ids[0][:4]) == list(ids[1][:4]) == list(ids[3])
        assert (ids[0][8:] < 0).all()
        assert (ids[2] < 0).all()
        assert len(requests.notes) == 1  # the output of 0


def test_a_folder_of_documents_shares_no_local_id(tmp_path):
    (tmp_path / "a.json").write_text(session([step(0, 8, 1, [0, 1]), step(5, 4, 1, [0])], id="a"))
    (tmp_path / "b.json.gz").write_bytes(
        gzip.compress(session([step(1, 8, 1, [0, 9])], id="b").encode())
    )
    (tmp_path / "c.json").write_text(session([step(2, 4, 1, [6])], id="c", hash_id_scope="global"))
    requests = read(tmp_path)
    assert requests.ids == ["a/0", "b/0", "c/0", "a/1"]
    sets = [set(ids.tolist()) for ids in requests.hash_ids]
    assert sets[2] == {6}
    assert sets[3] < sets[0]
    assert not sets[0] & sets[1]
    assert not sets[2] & (sets[0] | sets[1])


def test_local_ids_laid_after_each_other_stay_in_int64(tmp_path):
    for name in "abc":
        text = session([step(0, 8192, 1, [2**49])], id=name, block_size=8192)
        (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(WorkloadError, match=f"end above {2**50 - 1}, the most for 8192 tokens"):
        read(tmp_path)


def test_sharegpt_takes_the_first_exchange_and_owns_up_to_its_estimate(write):
    turns = [("system", "x"), ("human", "a" * 41), ("gpt", "b" * 8), ("human", "c")]
    document = [
        {"id": "q", "conversations": [{"from": who, "value": text} for who, text in turns]},
        {"id": "r", "conversations": [{"from": "gpt", "value": "alone"}]},
        {
            "id": "s",
            "conversations": [
                {"from": "human", "value": "hi", "num_tokens": 30},
                {"from": "gpt", "value": "yo", "num_tokens": 40},
            ],
        },
    ]
    requests = read(write(json.dumps(document)))
    assert requests.ids == ["q", "s"]
    assert list(requests.prompt_tokens) == [11, 30]
    assert list(requests.output_tokens) == [2, 40]
    assert "token counts of 1 requests are estimates, 4 characters a token" in requests.notes[0]
    assert "conversations skipped, without a human turn and a reply: 1" in requests.notes[1]


def test_lengths_accept_whole_floats_and_report_zeros(write):
    requests = read(write(LENGTHS + "7564.0,192.0,7756.0,39.39\n0,4,4,0\n5,0,5,0\n"))
    assert list(requests.prompt_tokens) == [7564, 5]
    assert list(requests.output_tokens) == [192, 1]
    assert [note.split(": ", 1)[1] for note in requests.notes] == [
        "requests skipped, with a prompt of 0 tokens: 1",
        "requests given 1 output token instead of 0: 1",
    ]


def test_lengths_read_a_time_column(write):
    text = "timestamp_ms,prompt_length,output_length\n6011,178,8\n6917,258,40\n"
    assert read(write(text)).arrival_s == pytest.approx([0, 0.906])
    text = "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,178,8\n2,258,40\n"
    assert read(write(text)).arrival_s == pytest.approx([0, 0.5])


def test_gzip_is_known_by_its_content(write):
    requests = read(write(gzip.compress((AZURE + "2023-11-16 18:15:46,3,4\n").encode()), "x.csv"))
    assert list(requests.prompt_tokens) == [3]


def test_out_of_order_lines_are_sorted_and_equal_times_keep_their_order(write):
    text = MOON % (3000, 1, 1, [0]) + MOON % (0, 2, 1, [0]) + MOON % (3000, 3, 1, [0])
    requests = read(write(text))
    assert list(requests.prompt_tokens) == [2, 1, 3]
    assert list(requests.arrival_s) == [0.0, 3.0, 3.0]


STAMP = "2023-11-16 18:15:46.6805900"
BAD_LINES = [
    (AZURE + f"{STAMP},1,2\n{STAMP},x,2\n", ":3: ContextTokens is 'x'; expected a whole number"),
    (AZURE + f"{STAMP},1\n", ":2: 2 fields; expected 3 as in the header"),
    (AZURE + f"{STAMP},-1,2\n", ":2: ContextTokens is '-1'; expected 0 to"),
    (AZURE + f"{STAMP},1,nan\n", ":2: GeneratedTokens is 'nan'; expected a whole"),
    (AZURE + f"{STAMP},1,1e300\n", ":2: GeneratedTokens is '1e300'; expected 0 to"),
    (AZURE + "yesterday,1,2\n", ":2: TIMESTAMP is 'yesterday'; expected a time such as"),
    (AZURE + "2023-13-16 18:15:46,1,2\n", ":2: TIMESTAMP is '2023-13-16 18:15:46'"),
    (AZURE + f'{STAMP},"1,2\n', ":2: not a CSV line"),
    (BURST + "inf,m,1,2,3,l\n", ":2: Timestamp is 'inf'; expected a finite time >= 0"),
    (LENGTHS + "\n7.5,1,8,1\n", ":3: num_prefill_tokens is '7.5'; expected a whole number"),
    (MOON % (0, 1, 1, [0]) + "{oops\n", ":2: not valid JSON"),
    (MOON % (0, 1, 1, [0]) + "[1]\n", ":2: expected a JSON object"),
    (MOON % (0, 1, 1, [0]) + '{"timestamp": 0}\n', ":2: no 'input_length'; the keys are timestamp"),
    (MOON % ("NaN", 1, 1, [0]), ":1: timestamp is nan; expected a finite time"),
    (MOON % (-5, 1, 1, [0]), ":1: timestamp is -5; expected a finite time"),
    (MOON % (0, "true", 1, [0]), ":1: input_length is True; expected a whole number"),
    (MOON % (0, 1, "1.5", [0]), ":1: output_length is 1.5; expected a whole number"),
    (MOON % (0, 1, 1, '"ab"'), ":1: hash_ids is not a list of whole numbers"),
    (MOON % (0, 1, 1, [0.5]), ":1: hash_ids is not a list of whole numbers"),
    (MOON % (0, 1, 1, [-1]), ":1: hash_ids holds a number outside"),
    (MOON % (0, 1, 1, [2**70]), ":1: hash_ids holds a number outside"),
    (MOON % (0, "9" * 5000, 1, [0]), ":1: not readable JSON"),
    ("[" * 100_000, ":1: not readable JSON"),
    (REAL % ("a", [], 1), ":1: prompt_token_ids is empty"),
    (REAL % ("a", [1], 1) + REAL % ("a", [1], 1), ":2: id 'a' is already that of line 1"),
    (REAL % ("a", [1], 1) + '{"id": "b", "prompt_token_ids": [1]}', ":2: no 'output_len'"),
    (
        REAL % ("a", [1], 1)
        + '{"id": "b", "prompt_token_ids": [1], "output_len": 1, "timestamp": 1}',
        ":2: timestamp must be in every line or in none",
    ),
    (CHAT.replace("20", "-20"), ":1: input_length is -20"),
    (session([step(0, 4, 1, [1]), step(0, "x", 1, [])]), ":requests[1]: in is 'x'"),
    (
        session([step(0, 1, 1, [0]), step(1, 1, 1, [2**50])], block_size=16384),
        f":requests[1]: hash_ids holds {2**50}; expected 0..{2**49 - 1} in blocks of 16384 tokens",
    ),
    (session([step(0, 4, 1, [1]), 3]), ":requests[1]: expected a JSON object"),
    (session([{"t": 1, "requests": [step(-1, 4, 1, [])]}]), ":requests[0].requests[0]: t is -1"),
    (session([], block_size=0), ":1: block_size is 0; expected at least 1"),
    (session([], hash_id_scope="x"), ":1: hash_id_scope is 'x'; expected local or global"),
    ("{\n", ":1: not valid JSON"),
    ('[{"id": 1}]', ":[0].conversations: expected a list of turns"),
    ('[{"conversations": [{"from": "human"}, {"from": "gpt"}]}]', ":[0].conversations[0]: no text"),
    ("what,is,this\n1,2,3\n", ":1: no known format begins like this: 'what,is,this'"),
    ("null\n", ":1: no known format"),
    (b"\x80\x04\x95pickled", ":1: not UTF-8 text"),
    ((AZURE + f"{STAMP},1,2\n").encode() + b"\xff\n", ":3: not UTF-8 text"),
    (
        gzip.compress((AZURE + f"{STAMP},1,2\n" * 9).encode())[:-9],
        "the gzip data ends early or is damaged",
    ),
    (b"\x1f\x8bnonsense", ":1: the gzip data ends early or is damaged"),
    ("", ": the file is empty"),
    (gzip.compress(b"\n \n"), ": the file is empty"),
    (AZURE, ": no request in the file"),
    (BURST + "1,m,5,0,5,l\n", ": no request in the file; "),
]


# The ids are numbers, since a gzip holds the time it was made and workers must agree on names.
@pytest.mark.parametrize(("content", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_bad_content_is_one_line_with_file_and_place(write, content, message):
    path = write(content)
    with pytest.raises(WorkloadError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:")
    assert message in text
    assert "\n" not in text


def test_a_forced_format_says_which_column_is_missing(write):
    path = write("a,b\n1,2\n")
    with pytest.raises(WorkloadError) as caught:
        read(path, "azure")
    assert str(caught.value) == (
        f"{path}:1: no column TIMESTAMP, ContextTokens, GeneratedTokens; the header is a,b"
    )


def test_a_header_that_is_no_csv_is_one_line(write):
    path = write(f"num_prefill_tokens,{'x' * 200_000}\n1,2\n")
    for format in ("azure", "burstgpt", "lengths"):
        with pytest.raises(WorkloadError, match=r":1: not a CSV line: field larger than"):
            read(path, format)


def test_missing_files_folders_and_unknown_formats(tmp_path):
    with pytest.raises(WorkloadError, match="cannot be read: No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(WorkloadError, match=r"no \.json or \.json\.gz file in this folder"):
        read(tmp_path)
    with pytest.raises(WorkloadError, match="is a folder"):
        read(tmp_path, "azure")
    with pytest.raises(WorkloadError, match=r"mooncak.*did you mean mooncake"):
        read(tmp_path, "mooncak")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=80), format=st.sampled_from(["auto", *FORMATS]))
def test_no_content_ends_in_a_traceback(tmp_path_factory, content, format):
    path = tmp_path_factory.mktemp("fuzz") / "file"
    path.write_bytes(content)
    with pytest.raises(WorkloadError):
        read(path, format)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 200), byte=st.integers(0, 255), sample=st.sampled_from(range(6)))
def test_one_changed_byte_is_read_or_refused(tmp_path_factory, at, byte, sample):
    good = [
        AZURE + f"{STAMP},1,2\n",
        BURST + "5,m,4,1,5,l\n",
        MOON % (0, 600, 1, [0, 1]) * 2,
        CHAT,
        session([step(0, 8, 1, [1, 2])]),
        REAL % ("a", [1, 2], 1),
    ][sample].encode()
    path = tmp_path_factory.mktemp("fuzz") / "file"
    at %= len(good)
    path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
    try:
        requests = read(path)
    except WorkloadError:
        return
    assert (requests.prompt_tokens >= 1).all()
    assert (requests.output_tokens >= 1).all()
    assert np.isfinite(requests.arrival_s).all()
    for i in range(min(len(requests), 2)):
        ids = requests.prompt_ids(i) if requests.prompt_tokens[i] < 10**6 else None
        assert ids is None or len(ids) == requests.prompt_tokens[i]
