"""Which amounts are measured, and the runs that the overhead of a step is taken from."""

from harness.measure.calibrate.grids import tiles, up_to
from harness.measure.calibrate.overhead import STEPS_EACH, staircase


def test_amounts_end_where_the_model_ends_and_come_in_whole_tiles():
    assert up_to((1, 10, 100), 50) == [1, 10, 50]
    assert up_to((1, 10), 50) == [1, 10]
    assert up_to((1, 10), 10) == [1, 10]
    assert tiles((1, 16, 17, 40), 16) == [16, 32, 48]
    assert tiles((1, 3), 1) == [1, 3]


def test_a_staircase_decodes_as_often_with_each_number_of_rows():
    outputs = staircase((1, 4, 16)).output_tokens
    # the first token comes with the prompt
    running = [(outputs - 1 > step).sum() for step in range(3 * STEPS_EACH)]
    assert running == [16] * STEPS_EACH + [4] * STEPS_EACH + [1] * STEPS_EACH
    assert outputs.max() == 1 + 3 * STEPS_EACH
