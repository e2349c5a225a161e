"""Random operations on a trial; the numbers come from a seeded generator or from Hypothesis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from allocators.base import Demand, IntArray, Prompt
from harness.conformance.trial import Make, Trial

#: draw(low, high) returns a whole number from low to high, both included
Draw = Callable[[int, int], int]

#: how many prompts come again and again, token by token alike
PROMPTS = 8
#: a ticket is any number the caller likes, and not a small one
TICKET_STEP = 1000


def drive(make: Make, seed: int, steps: int) -> Trial:
    """Run `steps` seeded operations under memory pressure; return the trial with its counts.

    Raises `Violation` at the first broken invariant, with the last calls as a note.
    """
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high, endpoint=True))

    trial = Trial(make)
    try:
        for _ in range(steps):
            weights = {name: n for name, n in WEIGHTS.items() if applies(name, trial)}
            odds = np.array(list(weights.values())) / sum(weights.values())
            OPERATIONS[list(weights)[rng.choice(len(odds), p=odds)]](trial, draw)
        trial.release_all()
    except Exception as error:
        last = max(0, len(trial.history) - 16)
        error.add_note("\n".join([f"seed {seed}, calls from {last} on:", *trial.story(last)]))
        raise
    return trial


def applies(name: str, trial: Trial) -> bool:
    """Say whether an operation can do anything now, so that no step is spent on it in vain."""
    if name == "visit":
        return trial.allocator.has_prefix_index
    return trial.swaps if name == "suspend" else bool(trial.tickets) or name != "resume"


def admit(trial: Trial, draw: Draw) -> None:
    geometry, idle = trial.geometry, trial.idle
    if not idle:
        return
    size = draw(1, min(4, len(idle))) if draw(0, 1) else 1
    first = draw(0, len(idle) - size)
    rows = np.array(idle[first : first + size][:: draw(0, 1) * 2 - 1], dtype=np.int64)
    prompt = draw(1, max(1, geometry.max_len * 2 // 3))
    output = draw(1, geometry.max_len - prompt + 1)
    # After a preemption part of the output is in the prompt, and part is each sequence's own.
    common = draw(0, output - 1) if not draw(0, 3) else 0
    private = draw(0, output - 1 - common) if size > 1 and draw(0, 1) else 0
    ids = None
    if draw(0, 3 if trial.allocator.has_prefix_index else 1):
        # Few first tokens and a long common run, so that prompts share prefixes.
        # Those of a single sequence may go on: they tell what it will hold as it grows.
        more = draw(0, output - 1 - common) if size == 1 else 0
        ids = np.full(prompt + common + more, draw(0, 1), dtype=np.int64)
        ids[draw(0, len(ids) - 1) :] = draw(2, 3)
    demand = Demand(prompt, output, private)
    trial.admit(rows, Prompt(prompt + common, ids), demand)


def visit(trial: Trial, draw: Draw) -> None:
    """Admit and end one of a few prompts, more than fit: it leaves what a prefix cache keeps."""
    if trial.idle and trial.allocator.has_prefix_index:
        rows = np.array(trial.idle[:1])
        tokens = draw(1, max(1, trial.geometry.max_len * 2 // 3))
        prompt = Prompt(tokens, np.full(tokens, draw(4, 3 + PROMPTS)))
        if trial.admit(rows, prompt, Demand(tokens, 1)):
            trial.release(rows)


def _batch(trial: Trial, draw: Draw) -> IntArray:
    """All sequences that may still grow, or some of them; at times in another order."""
    limit = trial.geometry.max_len
    rows = [s for s in trial.untouched.tolist() if len(trial.tokens[s]) < limit]
    if trial.planning or draw(0, 2) == 0:
        rows = [s for s in rows if draw(0, 1)]
    return np.array(rows[:: draw(0, 1) * 2 - 1], dtype=np.int64)


def grow(trial: Trial, draw: Draw) -> None:
    rows = _batch(trial, draw)
    if not len(rows):
        return
    longest = max(len(trial.tokens[s]) for s in rows.tolist())
    most = trial.geometry.max_len - longest
    trial.grow(rows, 1 if draw(0, 1) else draw(1, most))


def probe(trial: Trial, draw: Draw) -> None:
    rows = _batch(trial, draw)
    if len(rows):
        trial.check_growth(rows, draw(1, 12))


def fork(trial: Trial, draw: Draw) -> None:
    idle, live = trial.idle, trial.untouched
    if idle and len(live):
        children = np.array(idle[: draw(1, min(3, len(idle)))], dtype=np.int64)
        trial.fork(int(live[draw(0, len(live) - 1)]), children)


def reassign(trial: Trial, draw: Draw) -> None:
    """A beam step of several groups: each row continues from one of its group as long as itself."""
    peers: dict[tuple[int, int], list[int]] = {}
    for row in trial.untouched.tolist():
        peers.setdefault((trial.group_of[row], len(trial.tokens[row])), []).append(row)
    rows, parents = [], []
    for members in peers.values():
        if draw(0, 3):
            rows += members
            parents += [members[draw(0, len(members) - 1)] for _ in members]
    if rows:
        trial.reassign(np.array(rows), np.array(parents))


def truncate(trial: Trial, draw: Draw) -> None:
    rows = [s for s in trial.untouched.tolist() if len(trial.tokens[s]) > 1]
    if rows:
        row = rows[draw(0, len(rows) - 1)]
        trial.truncate(row, draw(1, len(trial.tokens[row]) - 1))


def _leaving(trial: Trial, draw: Draw) -> IntArray:
    """One group, or one sequence of it."""
    live = trial.untouched
    row = int(live[draw(0, len(live) - 1)])
    group = [s for s in live.tolist() if trial.group_of[s] == trial.group_of[row]]
    return np.array(group[:: draw(0, 1) * 2 - 1] if draw(0, 1) else [row])


def release(trial: Trial, draw: Draw) -> None:
    if len(trial.untouched):
        trial.release(_leaving(trial, draw))


def preempt(trial: Trial, draw: Draw) -> None:
    if len(trial.untouched):
        trial.preempt(_leaving(trial, draw))


def suspend(trial: Trial, draw: Draw) -> None:
    """The ticket is one that was not used yet, or is not in use any more."""
    if trial.swaps and len(trial.untouched):
        tickets = (TICKET_STEP * i for i in range(len(trial.tickets) + 1))
        ticket = next(number for number in tickets if number not in trial.tickets)
        trial.suspend(_leaving(trial, draw), ticket)


def resume(trial: Trial, draw: Draw) -> None:
    tickets, idle = list(trial.tickets), trial.idle
    if tickets:
        ticket = tickets[draw(0, len(tickets) - 1)]
        size = len(trial.tickets[ticket].tokens)
        if size <= len(idle):
            first = draw(0, len(idle) - size)
            rows = idle[first : first + size][:: draw(0, 1) * 2 - 1]
            trial.resume(np.array(rows, dtype=np.int64), ticket)


def fill(trial: Trial, draw: Draw) -> None:
    """Admit long prompts, one after the other, until that is refused."""
    limit = trial.geometry.max_len
    for row in trial.idle:
        tokens = draw(max(1, limit // 2), max(1, limit - 1))
        demand = Demand(tokens, limit - tokens + 1)
        if not trial.admit(np.array([row]), Prompt(tokens), demand):
            break


def burst(trial: Trial, draw: Draw) -> None:
    """Several calls, planned as one step."""
    with trial.step():
        for _ in range(draw(2, 6)):
            PLANNED[draw(0, len(PLANNED) - 1)](trial, draw)


#: what a burst is made of; some of it comes oftener
PLANNED = (
    admit, admit, admit, fill, grow, grow, grow, release, release, preempt, fork, reassign,
    truncate, suspend, resume, probe,
)  # fmt: skip
OPERATIONS: dict[str, Callable[[Trial, Draw], None]] = {
    f.__name__: f
    for f in (
        admit, visit, grow, burst, probe, fork, reassign, truncate, release, preempt, suspend,
        resume,
    )
}  # fmt: skip
#: how often the seeded schedule takes each operation; admissions outweigh releases: pressure
WEIGHTS = {
    "admit": 6, "visit": 8, "grow": 8, "burst": 8, "probe": 2, "fork": 2, "reassign": 3,
    "truncate": 1, "release": 2, "preempt": 1, "suspend": 6, "resume": 6,
}  # fmt: skip
