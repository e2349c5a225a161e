"""Gaps between tokens are those of a list of all tokens, whatever a request went through."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocators.base import Geometry, Unsupported
from allocators.paged import Paged
from harness.engine.config import EngineSpec, SamplingSpec
from harness.engine.engine import Engine
from harness.engine.schedulers.base import Unservable
from harness.engine.setup import Setup
from harness.results.summary import summarize
from tests.engine.cases import roofline, table
from tests.stories import tell

SAMPLINGS = {
    "greedy": SamplingSpec("greedy"),
    "parallel": SamplingSpec("parallel", n=3),
    "beam": SamplingSpec("beam", width=3, beam_switch=0.2),
    "speculative": SamplingSpec("speculative", draft_tokens=3),
}
POLICIES = ("chunked", "continuous", "orca", "static")
#: policy, sampling, preemption
KINDS = [
    *((policy, mode, "recompute") for policy in POLICIES for mode in ("greedy", "parallel")),
    *((policy, mode, "swap") for policy in ("continuous", "orca") for mode in ("greedy", "beam")),
    ("continuous", "beam", "recompute"),
    ("continuous", "speculative", "recompute"),
]


class Listing:
    """An observer that lists when each sequence of each request was given tokens.

    A view is shown before its step samples; what it gave is seen in the next one.
    """

    def __init__(self):
        self.times_s = defaultdict(lambda: defaultdict(list))  # request, sequence -> chunks' times
        self.groups = {}
        self.before = {}  # request -> tokens of each sequence, in the view before
        self.ends_s = []

    def on_step(self, step):
        now = defaultdict(list)
        running = step.running
        for place, owner in enumerate(running.owner.tolist()):
            now[owner].append(int(running.outputs[place] - running.left[place]))
        self.look(now)
        self.before, self.ends_s = dict(now), step.ends_s.tolist()
        self.groups.update(running.groups)

    def look(self, now):
        for request, held in self.before.items():
            group = self.groups[request]
            there = now.get(request, [group.generated] * len(held))
            for sequence, tokens in enumerate(there):
                gained = tokens - held[min(sequence, len(held) - 1)]
                if gained:
                    self.times_s[request][sequence] += self.ends_s
            for sequence in range(len(held), len(there)):  # forked from the first
                earlier = self.times_s[request][0]
                self.times_s[request][sequence] = list(earlier)

    def gaps_of(self, request):
        """Return the gaps of a request, which are those of each of its sequences."""
        found = [np.diff(times_s).tolist() for times_s in self.times_s[request].values()]
        assert all(gaps == found[0] for gaps in found)
        return found[0]


@pytest.mark.parametrize(("policy", "mode", "preemption"), KINDS, ids=map("-".join, KINDS))
def test_gaps_are_those_of_the_list(policy, mode, preemption):
    seen = Counter()

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(data=st.data())
    def check(data):
        draw = data.draw
        lengths = draw(
            st.lists(
                st.tuples(st.integers(1, 20), st.integers(1, 14)), min_size=2, max_size=8
            )
        )  # fmt: skip
        waits = draw(st.lists(st.integers(0, 9), min_size=len(lengths), max_size=len(lengths)))
        wait_s = draw(st.sampled_from([0.0, 0.0005, 0.004]))
        sampling = SAMPLINGS[mode]
        longest = max(p + sampling.sequences * o for p, o in lengths)
        block = draw(st.sampled_from([1, 4]))
        pool_tokens = -(-(longest + draw(st.sampled_from([0, 4, 12, 40]))) // block) * block
        pool = Geometry(pool_tokens, 16, 40, layers=2, host_tokens=2 * pool_tokens)
        spec = EngineSpec(
            policy, draw(st.sampled_from([4, 16])),
            max_num_batched_tokens=draw(st.sampled_from([4, 12, 2048])),
            skip_ahead=draw(st.booleans()), preemption=preemption,
        )  # fmt: skip
        requests = table(*zip(*lengths, strict=True), np.cumsum(waits) * wait_s)
        allocator = Paged(pool, block_size=block)
        plain = Engine(Setup(allocator, requests, sampling, spec, roofline(allocator), 0))
        try:
            log = plain.run("x")
        except (Unservable, Unsupported):
            seen["refused"] += 1
            return
        watched, listing = Paged(pool, block_size=block), Listing()
        others = requests, sampling, spec, roofline(watched), 0, [listing]
        Engine(Setup(watched, *others)).run("x")
        listing.look({})
        every = []
        for request, (_, outputs) in enumerate(lengths):
            gaps = listing.gaps_of(request)
            every += gaps
            assert log.requests["itl_max_s"][request] == max(gaps, default=None) or not gaps
            assert bool(gaps) != np.isnan(log.requests["itl_max_s"][request])
            assert len(gaps) == outputs - 1 or mode == "speculative"
        seconds, counts = log.token_gaps.values()
        assert np.repeat(seconds, counts).tolist() == sorted(every)
        metrics = summarize(log)
        if every:
            found = [metrics[f"itl_{name}_s"] for name in ("p50", "p90", "p99")]
            assert found == np.percentile(every, (50, 90, 99)).tolist()
            assert metrics["itl_mean_s"] == pytest.approx(np.mean(every), rel=1e-12)
        seen["finished"] += 1
        seen["preempted"] += int(log.requests["preemptions"].sum())
        seen["swapped"] += log.totals["swapped_bytes"] > 0
        seen["bundled"] += len(every) < sum(outputs - 1 for _, outputs in lengths)

    wanted = ["finished"]
    wanted += ["preempted"] * (policy != "static" or mode == "greedy")
    wanted += ["swapped"] * (preemption == "swap") + ["bundled"] * (mode == "speculative")
    tell(check, lambda: all(seen[what] for what in wanted))
    assert all(seen[what] for what in wanted), seen
