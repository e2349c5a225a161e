"""A memory map answers how much of what is held is written, and where the holes are."""

import numpy as np

from harness.report.memory_map import map_sentence


def kinds(*steps):
    """Steps of `.` free, `h` held and not written, `w` written, `s` shared."""
    return np.array([[".hws".index(letter) for letter in step] for step in steps], np.uint8)


def test_what_is_held_is_split_into_written_and_empty_and_what_is_free_into_holes():
    assert map_sentence(kinds("wwhh..s.", "wwwwww..")) == (
        "Of what is held 82\u00a0% is written and 9.1\u00a0% shared. 31\u00a0% is free, in "
        "1.5 holes on average; 80\u00a0% of it lies in the largest."
    )


def test_a_pool_that_is_full_or_empty():
    assert (
        map_sentence(kinds("wwww")) == "Of what is held 100\u00a0% is written. No stretch is free."
    )
    assert map_sentence(kinds("....")) == "Nothing is held."


def test_one_hole_is_one_hole():
    assert "50\u00a0% is free, in 1 hole on average; 100\u00a0%" in map_sentence(
        kinds("ww..", "..ww")
    )
