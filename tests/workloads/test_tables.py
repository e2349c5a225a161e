"""Empirical lengths: shipped quantile tables and a user's own CSV."""

import csv

import numpy as np
import pytest

from workloads import LengthSpec, WorkloadError, lengths, tables

SOURCES = {
    "azure_conv_2023": (
        "azure/AzureLLMInferenceTrace_conv.csv",
        ("ContextTokens", "GeneratedTokens"),
        (1154.7, 211.13),
    ),
    "sharegpt_8k_llama2": (
        "sarathi-serve/sharegpt_8k_filtered_stats_llama2_tokenizer.csv",
        ("num_prefill_tokens", "num_decode_tokens"),
        (2340.03, 438.71),
    ),
    "alpaca_llama2": (
        "derived/alpaca_5000_llama2_lengths.csv",
        ("num_prefill_tokens", "num_decode_tokens"),
        (19.89, 65.6),
    ),
}


def draw(n=100_000, role="prompt", **spec):
    rng = np.random.default_rng(0)
    return lengths.sample(LengthSpec(kind="empirical", **spec), n, rng, role)


def test_every_shipped_table_has_a_source_here():
    assert tables.shipped() == sorted(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("role", ["prompt", "output"])
def test_draws_from_a_shipped_table_have_its_mean(name, role):
    drawn = draw(role=role, table=name)
    mean = SOURCES[name][2][role == "output"]
    # Alpaca has answers of 0 tokens, which a draw leaves out: hence 2 %.
    assert drawn.mean() == pytest.approx(mean, rel=0.02)
    assert drawn.min() >= 1


@pytest.mark.shared_data
@pytest.mark.parametrize("name", SOURCES)
def test_shipped_table_is_its_recipe(name, shared_file):
    file, columns, _ = SOURCES[name]
    with open(shared_file(file), newline="") as stream:
        records = list(csv.DictReader(stream))
    for role, column in zip(("prompt", "output"), columns, strict=True):
        levels, shipped = tables.read_quantiles(tables.shipped_path(name, "x"), None, role)
        measured = np.quantile([float(record[column]) for record in records], tables.LEVELS)
        assert levels == pytest.approx(tables.LEVELS, abs=1e-9)
        assert shipped == pytest.approx(measured, abs=0.0051)


def test_lengths_csv_is_sampled_as_it_is(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("num_prefill_tokens,num_decode_tokens\n0,1\n10,2\n10,3\n99.0,4\n")
    assert set(draw(500, path=str(file))) == {10, 99}
    assert set(draw(500, path=str(file), high=50)) == {10}
    assert set(draw(500, role="output", path=str(file))) == {1, 2, 3, 4}
    assert set(draw(500, path=str(file), column="num_decode_tokens", low=3)) == {3, 4}


def test_quantile_csv_interpolates_within_the_cut(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text("# source\nquantile,tokens\n0,1\n0.5,100\n1,1000\n")
    drawn = draw(path=str(file))
    assert np.median(drawn) == pytest.approx(100, rel=0.03)
    assert draw(path=str(file), low=200, high=300).min() >= 200
    assert draw(path=str(file), low=200, high=300).max() <= 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "mine.csv:1: no column for prompt; set workload.prompt.column to one of a"),
        ("tokens\n1\n-4\n", "mine.csv:3: tokens is '-4'; expected 0 to"),
        ("tokens\n1.5\n", "mine.csv:2: tokens is '1.5'; expected a whole number"),
        ("tokens,other\n1\n", "mine.csv:1: no column"),
        ("tokens\n0\n", "no length >= 1"),
        ("quantile,tokens\n0,5\n0.5,x\n", "mine.csv:3: tokens is 'x'"),
        ("quantile,tokens\n0,5\n0.5,6\n", "rise from 0 to 1"),
        ("quantile,tokens\n0,5\n1\n", "mine.csv:3: expected 2 fields"),
        (f"tokens,{'x' * 200_000}\n1,2\n", "mine.csv:1: not a CSV line: field larger than"),
        ("", "the file is empty"),
        ("# only\n", "no column"),
    ],
)
def test_bad_tables_name_the_line(tmp_path, text, message):
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(WorkloadError) as caught:
        draw(5, path=str(file))
    assert message in str(caught.value)
