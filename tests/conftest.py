"""Hypothesis draws the same examples each time, unless HYPOTHESIS_PROFILE=explore is set."""

import os

from hypothesis import settings

import harness  # noqa: F401 - before torch: how its threads wait is set there

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
