"""What a sweep looks for: any row within the limits is better than any that misses one."""

from harness.cli.sweeps.table import best_line
from harness.results import ResultRow
from harness.results.goal import NOTHING, SweepSpec, best_score, keeps_limits, score
from harness.results.sweep import SweepRow

SPEC = SweepSpec(maximize="requests_per_s", at_most={"ttft_p99_s": 2.0, "tpot_p99_s": 0.1})


def row(rate, ttft_s, tpot_s, status="ok"):
    metrics = {"requests_per_s": rate, "ttft_p99_s": ttft_s, "tpot_p99_s": tpot_s}
    return ResultRow("paged", status, metrics=metrics)


def test_rows_within_the_limits_are_ordered_by_the_metric_and_the_others_by_what_they_miss():
    best, good = row(3.0, 2.0, 0.1), row(0.0, 1.0, 0.05)
    near, far = row(9.0, 2.2, 0.1), row(9.0, 2.2, 0.2)
    nothing = [row(None, 1.0, 0.05), row(5.0, None, 0.05), row(5.0, 1.0, 0.05, status="oom")]
    scores = [score(each, SPEC) for each in (best, good, near, far)]
    assert scores == sorted(scores, reverse=True)
    assert scores[:2] == [3.0, 0.0]
    assert abs(scores[2] + 0.1) < 1e-12
    assert abs(scores[3] + 1.1) < 1e-12
    assert {score(each, SPEC) for each in nothing} == {NOTHING}
    assert [keeps_limits(each, SPEC) for each in (best, good, near)] == [True, True, False]
    assert best_score([near, best, far], SPEC) == 3.0
    assert best_score([], SPEC) == NOTHING


def test_the_best_row_is_named_with_what_tells_it_from_the_others():
    def of(*found):
        rows = [SweepRow(str(i), {"seed": i, "model": "x"}, each) for i, each in enumerate(found)]
        return best_line(rows, SPEC)

    near, kept = row(9.0, 3.0, 0.05), row(1.5, 1.0, 0.05)
    assert of(near, kept) == (
        "best: paged seed=1: requests_per_s 1.50, ttft_p99_s 1.00 (at most 2), "
        "tpot_p99_s 0.0500 (at most 0.1)"
    )
    assert of(near, row(9.0, 4.0, 0.05)).startswith(
        "no row keeps the limits; closest: paged seed=0"
    )
    assert of(row(None, 1.0, 1.0)).startswith("best: no row has requests_per_s and ttft_p99_s")
