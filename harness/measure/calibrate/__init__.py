"""Measures a machine for `cost_model=calibrated`, and compares simulated with measured steps.

    python -m harness.measure.calibrate model=llama-tiny out=FILE

See docs/cost.md.
"""
