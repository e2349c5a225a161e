"""`python -m harness.size`: the pools that runs have, sums that add up, and wrong input."""

import json
import os

import pytest

from harness.comparison import compose, prepare
from harness.size.__main__ import main
from harness.size.budget import size
from harness.size.options import COUNTS, LENGTHS, parse

GIB = 2**30


def sized(*arguments):
    return size(parse(list(arguments)))


@pytest.mark.parametrize("model", ["gpt-oss-20b", "llama-3-8b", "jamba-1.5-mini"])
def test_the_pool_is_that_of_a_run(model):
    # hardware and engine as they are by default there, a GPU that holds all three
    found = sized(f"model={model}", "hardware=mi300x", "hardware.count=1,4", "lengths=2048")
    for row in found.rows:
        run = prepare(
            compose(
                "+workload=uniform", f"model={model}", "hardware=mi300x", "engine=chunked",
                f"hardware.count={row.gpus}", f"kv_dtype={row.kv_dtype}", "engine.max_len=2048",
            )
        )  # fmt: skip
        assert row.pool_bytes == run.geometry.capacity_bytes
        uniform = sum(group.slot_bytes for group in row.groups if group.grows)
        assert uniform == run.geometry.bytes_per_token


def test_the_parts_of_a_budget_are_all_that_is_usable():
    found = sized("model=gemma-3-27b", "hardware=h200")
    assert [budget.ranks for budget in found.budgets] == list(COUNTS)
    for budget in found.budgets:
        parts = budget.weight_bytes + budget.overhead_bytes + budget.left_bytes
        assert parts == budget.usable_bytes == int(budget.total_bytes * 0.9)
    pools = {(row.gpus, row.kv_dtype): row.pool_bytes for row in found.rows}
    for budget in found.budgets:
        left = budget.left_bytes * budget.ranks
        assert 0 <= left - pools[budget.ranks, "bf16"] < GIB // 1000


def test_what_fits_is_what_a_sequence_needs():
    found = sized("model=gpt-oss-20b", "hardware=h100-80gb", "hardware.count=1", "kv_dtype=bf16")
    (row,) = found.rows
    assert [fit.tokens for fit in row.fits] == list(LENGTHS)
    for fit in row.fits:
        # 12 layers keep all tokens and 12 the last 128, of 8 heads with 64 dimensions
        assert fit.needed_bytes == 12 * 2 * 8 * 64 * 2 * (fit.tokens + 128)
        assert fit.sequences == row.pool_bytes // fit.needed_bytes > 0


def test_half_the_bytes_are_twice_the_sequences():
    found = sized(
        "model=llama-3-8b", "hardware=h100-80gb", "kv_dtype=bf16,fp8,int8", "lengths=1000"
    )
    for at in range(0, len(found.rows), 3):
        bf16, fp8, int8 = (row.fits[0].sequences for row in found.rows[at : at + 3])
        assert fp8 == pytest.approx(2 * bf16, rel=0.01)
        assert int8 == pytest.approx(bf16 * 256 / 132, rel=0.01)


def test_lengths_beyond_the_model_are_left_out_and_named():
    found = sized("model=gemma-2-9b", "hardware=h100-80gb", "hardware.count=1")
    assert [fit.tokens for fit in found.rows[0].fits] == [2048, 8192]
    assert found.notes == ["32768, 131072 tokens are beyond the 8192 of Gemma-2-9B"]


def test_a_model_that_does_not_fit_says_on_how_many_gpus_it_would(capsys):
    assert main(["model=deepseek-v3", "hardware=h200"]) == 0
    printed = capsys.readouterr().out
    assert "note: nothing is left for the KV cache on 1, 2, 4 x H200-SXM" in printed
    assert main(["model=deepseek-v3", "hardware=h200", "hardware.count=2,4"]) == 0
    printed = capsys.readouterr().out
    assert "Sequences" not in printed
    assert "use hardware.count=6 or more" in printed


def test_gpus_that_a_server_would_refuse_are_named():
    found = sized("model=qwen2.5-7b", "hardware=l4", "hardware.count=3", "kv_dtype=bf16")
    assert (
        "3 GPUs do not divide the 28 heads of Qwen2.5-7B; real servers refuse that" in found.notes
    )


def test_json_has_the_bytes(capsys):
    options = ["model=jamba-1.5-mini", "hardware=h200", "hardware.count=2", "kv_dtype=fp8"]
    assert main([*options, "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    (budget,) = record["budgets"]
    assert budget["kv_cache_bytes"] == budget["usable_bytes"] - sum(
        budget[f"{part}_bytes"]
        for part in ("weight", "activation", "graph", "communication", "context")
    )
    (row,) = record["rows"]
    assert [group["kind"] for group in row["groups"]] == ["state", "full"]
    state = 28 * 2 * 8192 * (16 + 3)
    assert row["fits"][0]["needed_bytes"] == state + 2048 * 4 * 2 * 8 * 128
    assert record["parameters"] // 10**8 == 515


def test_tables_are_what_json_says(capsys):
    options = ["model=gpt-oss-20b", "hardware=h100-80gb", "hardware.count=1", "kv_dtype=bf16"]
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    row = sized(*options).rows[0]
    sequences = [fit.sequences for fit in row.fits]
    pool = f"{row.pool_bytes / GIB:.2f}"
    numbers = [line.split() for line in lines]
    assert ["1", "bf16", pool, *(f"{n:,}" for n in sequences)] in numbers
    tokens = [n * length for n, length in zip(sequences, LENGTHS, strict=True)]
    assert ["1", "bf16", pool, *(f"{n:,}" for n in tokens)] in numbers
    assert ["12", "sliding", "the", "last", "128", "tokens", "24", "token"] in numbers


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("model=gpt-6", "model=gpt-6"),
        ("hardware.count=0", "hardware.count must be whole numbers of at least 1 and at most 4096"),
        ("hardware.count=1.5", "got '1.5'"),
        ("kv_dtype=int3", "kv_dtype must be one of auto, fp32, fp16, bf16, fp8"),
        ("model.kv_dtype=int3", "kv_dtype must be one of auto, fp32, fp16, bf16, fp8"),
        ("lengths=", "lengths must be whole numbers"),
        ("lengths=" + ",".join(map(str, range(1, 40))), "lengths has 39 values; at most 32"),
        ("allocator=[paged]", "allocator changes nothing here; there are model, hardware, memory"),
        ("--format=yaml", "--format must be table or json, got 'yaml'"),
        ("--format", "--format must be table or json, got ''"),
        ("--nonsense", "expected OPTION=VALUE or --format json"),
        ("json", "is not OPTION=VALUE"),
        ("model.kv_heads=7", "model.kv_heads must divide"),
        ("model=null", "model=null leaves model out; choose one of "),
        ("model.layers=1,2", "lists several values"),
        ("model.nonsense=3", "nonsense"),
        ("hardware.memory_gb=-1", "hardware.memory_gb must be a positive number"),
        ("kv_dtype=int8", "a latent layer has neither; allowed: auto, fp32, fp16, bf16, fp8"),
    ],
)
def test_wrong_input_is_one_line(argument, text, capsys):
    model = ["model=deepseek-v2-lite"] if argument == "kv_dtype=int8" else []
    assert main([*model, argument]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert text in printed.err


def test_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["model=llama-3-8b", "hardware=h100-80gb"]) == 0
    assert main(["--help"]) == 0
    assert "usage: python -m harness.size" in capsys.readouterr().out
    assert os.listdir(tmp_path) == []
