"""The window of steps that a memory map covers."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.observers.memory_map import MapRecorder, parse_window


def test_windows_are_parsed():
    assert parse_window("0:5") == (0, 5)
    for text in ("", "5", "5:1", "-1:5", "a:b", "1:2:3"):
        with pytest.raises(ValueError, match=r"START:STOP"):
            parse_window(text)


def test_an_allocator_whose_addresses_lie_outside_its_pool_leaves_no_map():
    """It ends as a row with an error, and what was recorded of others is written."""
    allocator = SimpleNamespace(
        geometry=SimpleNamespace(capacity_tokens=4),
        extents=lambda row: np.array([[9, 1]]),
        addresses=lambda row: np.array([9]),
    )
    running = SimpleNamespace(rows=np.array([0]), owner=np.array([0]))
    recorder = MapRecorder(0, 5)
    with pytest.raises(IndexError):
        recorder.on_step(SimpleNamespace(first=0, steps=1, allocator=allocator, running=running))
    assert recorder.map() is None
