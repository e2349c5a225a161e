"""Published figures, each with one command: `python -m harness +experiment=NAME`.

`conf/experiment/NAME.yaml` holds the set-ups, `figures.csv` what was published and where, and one
function a figure makes the numbers that are compared.
"""
