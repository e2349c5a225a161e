"""Which options vary between runs, and what a table calls them."""

from harness.results.options import flat, short_names, varied


def test_flat_names_every_leaf():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_an_option_varies_where_its_value_differs_or_is_absent():
    runs = [{"a": 1, "b": [1], "c": 3}, {"a": 1, "b": [2]}]
    assert varied(runs) == ["b", "c"]
    assert varied(runs[:1]) == []


def test_names_are_short_where_that_says_enough():
    names = ["allocators.paged.block_size", "x.rate", "y.rate", "model.name", "seed"]
    assert list(short_names(names).values()) == [
        "block_size", "x.rate", "y.rate", "model.name", "seed",
    ]  # fmt: skip
