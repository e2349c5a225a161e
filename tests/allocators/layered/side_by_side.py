"""Two policies told the same, which must answer and account alike."""

import numpy as np

from allocators.base import Demand, Prompt

ACCOUNTS = ("token", "reserved", "internal", "round_up", "cached", "free", "pages", "expired")


def side_by_side(both, calls=400, known=False):
    """Admit, grow and release under pressure; return how many calls were refused.

    `known`: prompts begin alike, and their tokens are told.
    """
    rng, live, refused = np.random.default_rng(3), {}, 0
    for _ in range(calls):
        granted = _call(both, rng, live, known)
        assert granted[0] == granted[1]
        refused += not granted[0]
        rows = np.array(list(live), dtype=np.int64)
        finals = np.array(list(live.values()), dtype=np.int64)
        for policy in both:
            policy.begin_step()
        one, other = (policy.usage(rows, finals) for policy in both)
        for name in ACCOUNTS:
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    return refused


def _call(both, rng, live, known):
    idle = [row for row in range(both[0].geometry.max_seqs) if row not in live]
    if idle and rng.random() < 0.5:
        prompt, output = int(rng.integers(1, 30)), int(rng.integers(1, 30))
        demand, row = Demand(prompt, output), np.array(idle[:1])
        ids = None
        if known:
            ids = (np.arange(60) >= rng.integers(60)) * rng.integers(1, 4)
        grants = [policy.admit(row, Prompt(prompt, ids), demand) for policy in both]
        granted = [grant is not None and (True, grant.cached_tokens) for grant in grants]
        if granted[0]:
            live[idle[0]] = prompt + output - 1
        return granted
    rows = np.array([row for row in live if both[0].length[row] < live[row]], dtype=np.int64)
    granted = [policy.grow(rows) is not None if len(rows) else True for policy in both]
    if live and (not granted[0] or rng.random() < 0.2):
        row = int(rng.choice(list(live)))
        del live[row]
        for policy in both:
            policy.release(np.array([row]))
    return granted
