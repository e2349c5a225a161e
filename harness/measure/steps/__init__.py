"""The steps of `python -m harness.measure`: each is given a job and fills its record."""
