"""Is the simulation right for one server?  What a benchmark client measured, beside a simulation.

    python -m harness.replay measured=FILE model=... hardware=... [OPTION=VALUE ...]

`docs/replay.md` says what is read, how it is simulated and what is compared.
"""
