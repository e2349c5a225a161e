"""Random stories, told until all has happened that they are told for.

What is rare needs many examples and what is common few, and which it is changes with the code.
"""

from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

#: as often may all examples be drawn anew
MOST = 12


def tell(story, enough):
    """Run a test of Hypothesis with one seed after another, until `enough()`."""
    for number in range(MOST):
        seed(number)(story)()
        if enough():
            return


def tell_machine(machine, settings, enough):
    """Do so with a state machine."""
    for number in range(MOST):
        run_state_machine_as_test(seed(number)(machine), settings=settings)
        if enough():
            return
