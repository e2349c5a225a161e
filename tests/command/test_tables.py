"""The two table writers, to the letter."""

import pytest

from harness.command.tables import markdown_table, text_table

HEAD = ("name", "count", "note")
ROWS = [("a", 1, None), ("longer", 23456, "two words")]


def test_text_is_aligned_and_ends_in_no_blanks():
    assert text_table(HEAD, ROWS, "lrl").splitlines() == [
        "name    count  note",
        "a           1  -",
        "longer  23456  two words",
    ]


def test_markdown_is_aligned_in_its_source_too():
    assert markdown_table(HEAD, ROWS, "lrl").splitlines() == [
        "| name   | count | note      |",
        "| ------ | ----: | --------- |",
        "| a      |     1 | -         |",
        "| longer | 23456 | two words |",
    ]


def test_a_table_that_is_too_wide_wraps_its_longest_texts_alone():
    rows = [("a", 1, "so many words that it would be much too long"), ("longer", 23456, "two")]
    assert text_table(("name", "how\nmany", "note"), rows, "lrl", width=30).splitlines() == [
        "          how",
        "name     many  note",
        "a           1  so many words",
        "               that it would",
        "               be much too",
        "               long",
        "longer  23456  two",
    ]


def test_all_but_the_first_column_are_right_aligned_unless_told():
    assert text_table(HEAD, ROWS) == text_table(HEAD, ROWS, "lrr")
    assert markdown_table(HEAD, ROWS) == markdown_table(HEAD, ROWS, "lrr")


@pytest.mark.parametrize("table", [text_table, markdown_table])
def test_values_are_written_alike_in_both(table):
    row = (None, True, False, 1 / 3, 1234567.0, 7, "0.30")
    text = table(["x"] * len(row), [row]).splitlines()[-1]
    assert text.replace("|", "").split() == ["-", "yes", "no", "0.3333", "1.235e+06", "7", "0.30"]


@pytest.mark.parametrize("table", [text_table, markdown_table])
def test_a_table_without_rows_is_its_head(table):
    assert table(("a", "b"), []).splitlines()[0].replace("|", "").split() == ["a", "b"]


def test_text_is_never_wrapped_coloured_or_read_as_markup(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    long = "[bold]word[/bold] " * 200 + "end"
    assert text_table(("x", "y"), [(long, 1)]).splitlines()[1] == f"{long}  1"


def test_markdown_escapes_a_pipe_once_and_keeps_a_row_on_its_line():
    lines = markdown_table(("x",), [("a|b",), (r"c\|d",), ("**e**",), ("f\ng",)]).splitlines()
    assert lines[2:] == [r"| a\|b  |", r"| c\|d  |", "| **e** |", "| f g   |"]


@pytest.mark.parametrize("align", ["l", "lrlr", "lcr"])
def test_an_alignment_that_does_not_fit_is_refused(align):
    with pytest.raises(ValueError, match="is not one of l and r"):
        text_table(HEAD, ROWS, align)
