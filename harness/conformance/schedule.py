"""Random operations on a driver; the numbers come from a seeded generator or from Hypothesis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from allocators.base import Demand, IntArray, Prompt
from harness.conformance.driver import Driver, Make

#: draw(low, high) returns a whole number from low to high, both included
Draw = Callable[[int, int], int]

#: how many prompts come again and again, token by token alike
PROMPTS = 8
#: a ticket is any number the caller likes, and not a small one
TICKET_STEP = 1000


def drive(make: Make, seed: int, steps: int) -> Driver:
    """Run `steps` seeded operations under memory pressure; return the driver with its counts.

    Raises `Violation` at the first broken invariant, with the last calls as a note.
    """
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high, endpoint=True))

    driver = Driver(make)
    try:
        for _ in range(steps):
            weights = {name: n for name, n in WEIGHTS.items() if applies(name, driver)}
            odds = np.array(list(weights.values())) / sum(weights.values())
            OPERATIONS[list(weights)[rng.choice(len(odds), p=odds)]](driver, draw)
        driver.release_all()
    except Exception as error:
        last = max(0, len(driver.history) - 8)
        error.add_note("\n".join([f"seed {seed}, calls from {last} on:", *driver.story(last)]))
        raise
    return driver


def applies(name: str, driver: Driver) -> bool:
    """Say whether an operation can do anything now, so that no step is spent on it in vain."""
    if name == "visit":
        return driver.allocator.has_prefix_index
    return driver.swaps if name == "suspend" else bool(driver.tickets) or name != "resume"


def admit(driver: Driver, draw: Draw) -> None:
    geometry, idle = driver.geometry, driver.idle
    if not idle:
        return
    size = draw(1, min(4, len(idle))) if draw(0, 1) else 1
    first = draw(0, len(idle) - size)
    seqs = np.array(idle[first : first + size][:: draw(0, 1) * 2 - 1], dtype=np.int64)
    prompt = draw(1, max(1, geometry.max_len * 2 // 3))
    output = draw(1, geometry.max_len - prompt + 1)
    # After a preemption part of the output is in the prompt, and part is each sequence's own.
    common = draw(0, output - 1) if not draw(0, 3) else 0
    private = draw(0, output - 1 - common) if size > 1 and draw(0, 1) else 0
    ids = None
    if draw(0, 3 if driver.allocator.has_prefix_index else 1):
        # Few first tokens and a long common run, so that prompts share prefixes.
        # Those of a single sequence may go on: they tell what it will hold as it grows.
        more = draw(0, output - 1 - common) if size == 1 else 0
        ids = np.full(prompt + common + more, draw(0, 1), dtype=np.int64)
        ids[draw(0, len(ids) - 1) :] = draw(2, 3)
    demand = Demand(prompt, output, private)
    driver.admit(seqs, Prompt(prompt + common, ids), demand)


def visit(driver: Driver, draw: Draw) -> None:
    """Admit and end one of a few prompts, more than fit: it leaves what a prefix cache keeps."""
    if driver.idle and driver.allocator.has_prefix_index:
        seqs = np.array(driver.idle[:1])
        tokens = draw(1, max(1, driver.geometry.max_len * 2 // 3))
        prompt = Prompt(tokens, np.full(tokens, draw(4, 3 + PROMPTS)))
        if driver.admit(seqs, prompt, Demand(tokens, 1)):
            driver.release(seqs)


def _batch(driver: Driver, draw: Draw) -> IntArray:
    """All sequences that may still grow, or some of them; at times in another order."""
    limit = driver.geometry.max_len
    seqs = [s for s, tokens in driver.tokens.items() if len(tokens) < limit]
    if draw(0, 2) == 0:
        seqs = [s for s in seqs if draw(0, 1)]
    return np.array(seqs[:: draw(0, 1) * 2 - 1], dtype=np.int64)


def grow(driver: Driver, draw: Draw) -> None:
    seqs = _batch(driver, draw)
    if not len(seqs):
        return
    longest = max(len(driver.tokens[s]) for s in seqs.tolist())
    most = driver.geometry.max_len - longest
    driver.grow(seqs, 1 if draw(0, 1) else draw(1, most))


def probe(driver: Driver, draw: Draw) -> None:
    seqs = _batch(driver, draw)
    if len(seqs):
        driver.check_growth(seqs, draw(1, 12))


def fork(driver: Driver, draw: Draw) -> None:
    idle, live = driver.idle, driver.live
    if idle and len(live):
        children = np.array(idle[: draw(1, min(3, len(idle)))], dtype=np.int64)
        driver.fork(int(live[draw(0, len(live) - 1)]), children)


def reassign(driver: Driver, draw: Draw) -> None:
    """A beam step of several gangs: each row continues from one of its gang as long as itself."""
    peers: dict[tuple[int, int], list[int]] = {}
    for seq, tokens in driver.tokens.items():
        peers.setdefault((driver.gang[seq], len(tokens)), []).append(seq)
    rows, parents = [], []
    for members in peers.values():
        if draw(0, 3):
            rows += members
            parents += [members[draw(0, len(members) - 1)] for _ in members]
    if rows:
        driver.reassign(np.array(rows), np.array(parents))


def truncate(driver: Driver, draw: Draw) -> None:
    seqs = [s for s, tokens in driver.tokens.items() if len(tokens) > 1]
    if seqs:
        seq = seqs[draw(0, len(seqs) - 1)]
        driver.truncate(seq, draw(1, len(driver.tokens[seq]) - 1))


def _leaving(driver: Driver, draw: Draw) -> IntArray:
    """One gang, or one sequence of it."""
    live = driver.live
    seq = int(live[draw(0, len(live) - 1)])
    gang = [s for s in live.tolist() if driver.gang[s] == driver.gang[seq]]
    return np.array(gang[:: draw(0, 1) * 2 - 1] if draw(0, 1) else [seq])


def release(driver: Driver, draw: Draw) -> None:
    if len(driver.tokens):
        driver.release(_leaving(driver, draw))


def suspend(driver: Driver, draw: Draw) -> None:
    """The ticket is one that was not used yet, or is not in use any more."""
    if driver.swaps and len(driver.tokens):
        tickets = (TICKET_STEP * i for i in range(len(driver.tickets) + 1))
        ticket = next(number for number in tickets if number not in driver.tickets)
        driver.suspend(_leaving(driver, draw), ticket)


def resume(driver: Driver, draw: Draw) -> None:
    tickets, idle = list(driver.tickets), driver.idle
    if tickets:
        ticket = tickets[draw(0, len(tickets) - 1)]
        size = len(driver.tickets[ticket].tokens)
        if size <= len(idle):
            first = draw(0, len(idle) - size)
            seqs = idle[first : first + size][:: draw(0, 1) * 2 - 1]
            driver.resume(np.array(seqs, dtype=np.int64), ticket)


OPERATIONS: dict[str, Callable[[Driver, Draw], None]] = {
    f.__name__: f
    for f in (admit, visit, grow, probe, fork, reassign, truncate, release, suspend, resume)
}
#: how often the seeded schedule takes each operation; admissions outweigh releases: pressure
WEIGHTS = {
    "admit": 6, "visit": 6, "grow": 8, "probe": 2, "fork": 2, "reassign": 3, "truncate": 1,
    "release": 3, "suspend": 4, "resume": 6,
}  # fmt: skip
