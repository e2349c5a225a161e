"""Measures a machine: what a GPU does with the kernels, memory and real runs of this project.

`python -m harness.measure` runs all steps and writes a record of each (docs/gpu.md);
`python -m harness.measure.calibrate` writes times for `cost_model=calibrated` (docs/cost.md).
"""
