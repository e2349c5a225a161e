"""Which request of an agent session waits for which: the recording as a forest of requests.

An agent sends its requests one after the other. A sub-agent starts from a request of its parent
and runs beside its siblings; the parent goes on when they are done:

    parent      a0 ──> a1 ─────────────────────> a2 ──> ...
                        ├──> b0 ──> b1 (ends) ───┘         a2 comes after c0: the last to end
                        └──> c0 (ends later) ────┘         of a1 and the sub-agents done by then

A request has one predecessor, so of several sub-agents the parent waits for the one that was the
last to end in the recording. One that the recording shows to end after the parent's next request
ran in the background, and is not waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

Agent = tuple[int, ...]  # place of a sub-agent in its document, () for the session itself


@dataclass(frozen=True, slots=True)
class Leaf:
    """One request of a session: `end_s` is `start_s` where the recording does not tell."""

    row: int
    agent: Agent
    start_s: float
    end_s: float


def chain(leaves: list[Leaf]) -> dict[int, tuple[int, float]]:
    """Row -> (row that it comes after, seconds from that one's end to it); (-1, 0.0) if none.

    A predecessor starts no later than what comes after it.
    """
    final_s: dict[Agent, float] = {}
    for leaf in leaves:
        final_s[leaf.agent] = max(leaf.end_s, final_s.get(leaf.agent, leaf.end_s))
    latest: dict[Agent, Leaf] = {}
    before: dict[int, tuple[int, float]] = {}
    for leaf in sorted(leaves, key=lambda leaf: leaf.start_s):  # stable: the document's order
        found = _predecessor(leaf, latest, final_s)
        gap_s = max(0.0, leaf.start_s - found.end_s) if found else 0.0
        before[leaf.row] = (found.row if found else -1, gap_s)
        latest[leaf.agent] = leaf
    return before


def _predecessor(leaf: Leaf, latest: dict[Agent, Leaf], final_s: dict[Agent, float]) -> Leaf | None:
    own = latest.get(leaf.agent)
    if own is None:  # a sub-agent starts from the closest agent around it that has run
        around = (leaf.agent[:depth] for depth in range(len(leaf.agent) - 1, -1, -1))
        return next((latest[agent] for agent in around if agent in latest), None)
    done = [
        last
        for agent, last in latest.items()
        if agent[:-1] == leaf.agent and agent and final_s[agent] <= leaf.start_s
    ]
    return max([own, *done], key=lambda last: last.end_s)
