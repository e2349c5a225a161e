"""A damaged file is one line that says where and what: never a traceback, never a guess."""

import json
import random
from copy import deepcopy

import pytest

from harness.errors import InputError
from harness.replay.errors import ReplayError
from tests.replay.files import FILES, TIMED, altered, measured

HEAD = "arrival_s,prompt_tokens,output_tokens,ttft_s,e2e_s\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"  \n\n", "the file is empty"),
        (b"\x7fELF\x00\xff\xfe", "not UTF-8 text"),
        (b"a\x00b", "binary"),
        (b"hello there", "of no known format; there are sglang"),
        (b'{"a": ', "not JSON, or cut short"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b"[1, 2]", "of no known format"),
        (b"{}", "of no known format"),
        (b'{"benchmarks": []}', "GuideLLM: holds no run"),
        (b'{"benchmarks": [3]}', "a benchmark is 3; expected a JSON object"),
        (b'{"experiments": [{"requests": []}]}', "holds no request"),
        (b"# TYPE vllm:num_requests_running gauge", "metrics=FILE"),
        (HEAD.encode(), "holds no request"),
        (HEAD.encode() + b"0,1,2,3\n", ":2: has 4 fields and the header 5"),
        (HEAD.encode() + b"0,1,2,x,1\n", ":2: ttft_s is 'x'; expected a number"),
        (HEAD.encode() + b"0,1,2,nan,1\n", ":2: ttft_s is nan; expected a number"),
        (HEAD.encode() + b"0,1.5,2,0,1\n", ":2: prompt_tokens is 1.5; expected a whole number"),
        (HEAD.encode() + b"0,0,2,0,1\n", "request 0 has a prompt of 0 tokens"),
        (HEAD.encode() + b"0,1,0,,\n", "all 1 requests failed"),
        (HEAD.encode() + b"0,1,2,2,1\n", "request 0 run backwards: its first token came after 2 s"),
        (HEAD.encode() + b"0,1,2,-1,1\n", "request 0 run backwards"),
        (HEAD.encode() + b"0,1,2,1,2\n1e11,1,2,1,2\n", "starts 1e.11 s after the first one"),
        (b"arrival_s,prompt_tokens\n0,1\n", "has no column output_tokens, ttft_s, e2e_s"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, said):
    path = tmp_path / "measured"
    path.write_bytes(content)
    with pytest.raises(ReplayError, match=said) as refused:
        measured(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_absent_or_a_folder(tmp_path):
    with pytest.raises(ReplayError, match="no such file"):
        measured(tmp_path / "absent.json")
    with pytest.raises(ReplayError, match="cannot be read: Is a directory"):
        measured(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("itls") and None, "has no itls"),
        (lambda d: d["ttfts"].pop() and None, "ttfts has 3 entries and input_lens 4"),
        (lambda d: d.update(ttfts=5), "ttfts is 5; expected a list"),
        (lambda d: d.update(start_times=["x"] * 4), r"start_times\[0\] is 'x'"),
        (lambda d: d.update(output_lens=[True] * 4), r"output_lens\[0\] is True"),
        (lambda d: d.update(errors=["lost"] * 4), r"all 4 requests failed \(lost\)"),
        (lambda d: d["itls"].__setitem__(0, [-1.0, 2.0]), "a gap is negative"),
        (lambda d: d["latencies"].__setitem__(1, 0.01), "request 1 run backwards"),
    ],
)
def test_a_field_that_is_wrong(tmp_path, change, said):
    with pytest.raises(ReplayError, match=said):
        measured(altered(tmp_path, "vllm_bench_serve.json", change))


def test_without_streaming_there_is_no_first_token(tmp_path):
    def unstreamed(document):
        for request in document["benchmarks"][0]["requests"]["successful"]:
            request["info"]["timings"]["first_token_iteration"] = None
            request["time_to_first_token_ms"] = None

    with pytest.raises(ReplayError, match="measured without streaming"):
        measured(altered(tmp_path, "guidellm.json", unstreamed))
    with pytest.raises(ReplayError, match="run without --streaming"):
        measured(
            altered(
                tmp_path,
                "aiperf_profile_export.jsonl",
                lambda d: d["metrics"].pop("time_to_first_token") and None,
            )
        )


ODD = (None, True, -1, 1e308, 10**400, "", "x", [], {}, [None], float("nan"), [[[]]])


def complaint(path, **stated):
    """Return what is said of a file, nothing where it can be read; anything else is raised."""
    try:
        measured(path, **stated)
    except InputError as error:
        return str(error)
    return ""


def spoil(value, rng):
    """Replace one value somewhere in a JSON document, or leave one out."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not isinstance(value[key], dict | list) or not value[key] or rng.random() < 0.15:
            if rng.random() < 0.3:
                del value[key]
            else:
                value[key] = deepcopy(rng.choice(ODD))
            return
        value = value[key]


@pytest.mark.parametrize("name", [name for name in TIMED if name != "plain.csv"])
def test_damage_of_any_kind_is_one_line(name, tmp_path):
    text = (FILES / name).read_text()
    rng, path, refused = random.Random(name), tmp_path / name, 0
    for _ in range(300):
        documents = [json.loads(line) for line in text.splitlines()] if name[-1] == "l" else None
        document = documents or json.loads(text)
        for _ in range(rng.randint(1, 3)):
            spoil(document, rng)
        lines = document if documents else [document]
        path.write_text("\n".join(map(json.dumps, lines)))
        line = complaint(path, **TIMED[name])
        assert "\n" not in line
        refused += bool(line)
    assert refused > 0


@pytest.mark.parametrize("name", TIMED)
def test_a_file_that_is_cut_short_or_has_a_byte_changed(name, tmp_path):
    raw = (FILES / name).read_bytes()
    rng, path = random.Random(name), tmp_path / name
    for _ in range(200):
        spoilt = bytearray(raw[: rng.randrange(len(raw))] if rng.random() < 0.5 else raw)
        if spoilt:
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        path.write_bytes(spoilt)
        assert "\n" not in complaint(path, **TIMED[name])
