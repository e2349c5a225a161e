"""Measures times for `cost_model=calibrated`, and how far simulated steps are from measured ones.

    python -m harness.measure.calibrate model=llama-tiny out=FILE

See docs/cost.md.
"""
