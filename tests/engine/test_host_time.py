"""Host time: every decision of the protocol is timed, nothing else is, and nothing else changes."""

import time

import numpy as np

from allocators.base import Allocator, Demand, Prompt
from allocators.paged import Paged
from harness.engine.host_time import DECISIONS, REST, HostTime
from tests.engine.cases import MODES, POOL, drawn, make

ROW = np.array([0])


class Slow(Paged):
    """Takes a millisecond to decide."""

    def grow(self, rows, n=1):
        time.sleep(1e-3)
        return super().grow(rows, n)


def test_the_whole_protocol_is_timed_or_passed_on():
    public = {name for name in dir(Paged(POOL)) if not name.startswith("_")}
    of_protocol = {name for name in public if hasattr(Allocator, name)}
    assert of_protocol <= {*DECISIONS, *REST}
    assert not {*DECISIONS} & {*REST}
    assert {*DECISIONS, *REST} <= public


def test_decisions_add_their_seconds_and_views_add_none():
    host_time, allocator = HostTime(), Slow(POOL)
    watched = host_time.watch(allocator)
    watched.admit(ROW, Prompt(3), Demand(3, 9))
    admitted_s = host_time.spent_s
    assert admitted_s > 0
    watched.headroom(ROW)
    watched.usage(ROW, np.array([9]))
    assert host_time.spent_s == admitted_s
    watched.grow(ROW)
    assert host_time.spent_s >= admitted_s + 1e-3


def test_attributes_are_those_of_the_allocator_at_the_time():
    allocator = Paged(POOL)
    watched = HostTime().watch(allocator)
    watched.admit(ROW, Prompt(3), Demand(3, 9))
    assert watched.geometry is allocator.geometry
    assert watched.length is allocator.length
    allocator.length = allocator.length + 1
    assert watched.length[0] == 4


def test_a_run_reports_the_time_of_its_decisions():
    log = make(Slow(POOL), drawn(4), MODES["greedy"], skip_ahead=False).run("slow")
    assert log.totals["allocator_host_s"] >= 1e-3
