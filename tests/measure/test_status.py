"""The exit status of a measurement says whether anything was measured."""

import pytest

from harness.measure.__main__ import _status


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"environment": "ok", "kernels": "ok", "beam": "skipped"}, 0),
        ({"environment": "ok", "vmm": "unsupported"}, 0),
        ({"environment": "ok"}, 0),
        ({"environment": "skipped", "kernels": "skipped"}, 1),
        ({"environment": "ok", "kernels": "skipped", "vmm": "unsupported"}, 1),
        ({"kernels": "ok", "beam": "failed"}, 1),
        ({"kernels": "partial"}, 1),
    ],
)
def test_nothing_measured_for_want_of_time_is_no_success(found, status):
    assert _status(found) == status
