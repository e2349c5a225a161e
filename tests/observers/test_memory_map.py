"""The window of steps that a memory map covers."""

import pytest

from harness.observers.memory_map import parse_window


def test_windows_are_parsed():
    assert parse_window("0:5") == (0, 5)
    for text in ("", "5", "5:1", "-1:5", "a:b", "1:2:3"):
        with pytest.raises(ValueError, match=r"START:STOP"):
            parse_window(text)
