"""Everything that is to be measured on a GPU, in one command: `python -m harness.measure`."""
