"""One full layer group is a uniform model: layered, every call is answered as `Paged` does."""

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest

from allocators.base import Demand, Geometry, NeverFits, Prompt, Usage
from allocators.layers import LayerGroup
from allocators.paged import Paged

UNIFORM = Geometry(capacity_tokens=230, max_seqs=9, max_len=60, host_tokens=80)
LAYERED = Geometry(
    capacity_tokens=230,
    max_seqs=9,
    max_len=60,
    host_tokens=80,
    layer_groups=(LayerGroup("full", 1, UNIFORM.bytes_per_token),),
    pool_bytes=UNIFORM.capacity_bytes,
    step_tokens=16,
)


class Both:
    """Two policies that are told the same, with what is asked and answered compared."""

    def __init__(self, rng, groups, **knobs):
        self.rng, self.counts = rng, Counter()
        self.plain, self.layered = (
            Paged(UNIFORM, **knobs),
            Paged.of(LAYERED, groups=groups, **knobs),
        )
        self.members, self.tickets, self.next = [], {}, 0

    def ask(self, method, *args):
        answers = []
        for policy in (self.plain, self.layered):
            try:
                answers.append(getattr(policy, method)(*args))
            except NeverFits:
                answers.append("never")
        ours, theirs = answers[1], answers[0]
        assert (ours is None) == (theirs is None), f"{method}: {ours}, not {theirs}"
        assert (ours == "never") == (theirs == "never")
        if ours is None or ours == "never":
            self.counts[f"{method} refused"] += 1
            return None
        for name, columns in (("copies", [0, 1, 2]), ("swaps_in", [0, 2]), ("swaps_out", [0, 2])):
            got, due = getattr(ours, name), getattr(theirs, name)
            assert got[:, columns].tolist() == due[:, columns].tolist(), f"{name} of {method}"
            self.counts[name] += len(got)
        assert ours.cached_tokens == theirs.cached_tokens
        self.counts["hits"] += ours.cached_tokens
        self.counts[method] += 1
        return ours

    def same(self):
        plain, layered = self.plain, self.layered
        layered.check()
        rows = np.array([row for group in self.members for row in group], dtype=np.int64)
        assert layered.length.tolist() == plain.length.tolist()
        assert layered.layout(rows).table.tolist() == plain.layout(rows).table.tolist()
        assert layered.balance() == plain.balance()
        assert layered.evictions == plain.evictions
        for part in (rows, rows[::2]):
            finals = plain.length[part] + self.rng.integers(0, 9, len(part))
            self.same_usage(plain.usage(part, finals), layered.usage(part, finals))
            if len(part):
                assert layered.headroom(part) == plain.headroom(part)
                most = int(60 - plain.length[part].max())
                assert layered.quiet_steps(part, most) == plain.quiet_steps(part, most)

    @staticmethod
    def same_usage(plain, layered):
        for field in fields(Usage):
            got, due = getattr(layered, field.name), getattr(plain, field.name)
            assert got.tolist() == due.tolist(), f"{field.name}: {got}, not {due}"

    # -- what happens ------------------------------------------------------------------------
    def idle(self):
        busy = {row for group in self.members for row in group}
        return [row for row in range(9) if row not in busy]

    def act(self):
        kinds = ["admit", "admit", "grow", "grow", "grow", "truncate", "fork", "reassign"]
        kind = self.rng.choice([*kinds, "release", "suspend", "resume", "quiet"])
        if kind in ("admit", "resume") or self.members:
            getattr(self, kind)()
            for policy in (self.plain, self.layered):
                policy.begin_step()
            self.same()

    def some(self):
        return self.members[self.rng.integers(len(self.members))]

    def admit(self):
        idle, rng = self.idle(), self.rng
        size = int(rng.integers(1, 4))
        if len(idle) < size:
            return
        tokens, private = int(rng.integers(1, 30)), int(rng.integers(0, 5)) if size > 1 else 0
        ids = np.zeros(60, dtype=np.int64)
        ids[int(rng.integers(0, 40)) :] = rng.integers(1, 3)
        prompt = Prompt(tokens, ids if rng.random() < 0.8 else None, int(rng.integers(0, 40)))
        demand = Demand(tokens, 20, private, int(rng.integers(1, 3)))
        hit = self.plain.lookup(prompt)
        assert self.layered.lookup(prompt) == hit
        rows = np.array(idle[:size])
        if self.ask("admit", rows, prompt, demand) is not None:
            self.members.append(rows.tolist())

    def grow(self):
        groups = [self.some()] if self.rng.random() < 0.5 else self.members
        rows = np.array([row for group in groups for row in group])
        n = int(self.rng.integers(1, 12)) if len(groups) == 1 and self.rng.random() < 0.3 else 1
        if self.plain.length[rows].max() + n <= 60 and self.ask("grow", rows, n) is None:
            self.release()

    def quiet(self):
        rows = np.array([row for group in self.members for row in group])
        n = self.plain.quiet_steps(rows, int(60 - self.plain.length[rows].max()))
        if n:
            self.ask("grow", rows, n)
            finals = self.plain.length[rows] + 2
            self.same_usage(self.plain.usage(rows, finals, n), self.layered.usage(rows, finals, n))

    def truncate(self):
        row = self.some()[0]
        if self.plain.length[row] > 1:
            self.ask("truncate", row, int(self.rng.integers(1, min(6, self.plain.length[row]))))

    def fork(self):
        group, idle = self.some(), self.idle()
        if len(group) == 1 and idle:
            self.ask("fork", group[0], np.array(idle[:2]), Demand(1, 1))
            group += idle[:2]

    def reassign(self):
        group = self.some()
        lengths = self.plain.length[group]
        rows = np.array([row for row, n in zip(group, lengths, strict=True) if n == lengths[0]])
        self.ask("reassign", rows, self.rng.choice(rows, len(rows)))

    def release(self):
        group = self.some()
        self.members.remove(group)
        self.ask("release", np.array(group))

    def suspend(self):
        group = self.some()
        self.next += 1
        if self.ask("suspend", np.array(group), self.next) is not None:
            self.members.remove(group)
            self.tickets[self.next] = len(group)

    def resume(self):
        for ticket, size in list(self.tickets.items())[:1]:
            rows = self.idle()[:size]
            if len(rows) == size and self.ask("resume", np.array(rows), ticket) is not None:
                self.members.append(rows)
                del self.tickets[ticket]


@pytest.mark.parametrize("free_order", ["unkeyed_first", "by_age"])
@pytest.mark.parametrize("prefix_index", ["none", "hash"])
@pytest.mark.parametrize("groups", ["hybrid", "uniform", "split"])
def test_every_answer_is_that_of_the_uniform_policy(groups, prefix_index, free_order):
    if prefix_index == "none" and free_order == "by_age":
        knobs = {"block_size": 7, "watermark": 0.1}
    else:
        knobs = {"block_size": 4, "prefix_index": prefix_index, "free_order": free_order}
    counts = Counter()
    for seed in (3, 5):  # all that is expected happens in them
        both = Both(np.random.default_rng(seed), groups, **knobs)
        for _ in range(180):
            both.act()
        counts += both.counts
    expected = {"admit refused", "grow refused", "copies", "swaps_in", "truncate", "reassign"}
    expected |= {"hits"} if prefix_index == "hash" else set()
    assert not expected - set(counts), counts
