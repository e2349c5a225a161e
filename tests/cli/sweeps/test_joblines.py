"""A sweep says one line a job, with the time that is left."""

from harness.cli.sweeps.joblines import JobLines
from harness.results import ResultRow


def lines_at(seconds, swept, jobs):
    clock = iter([0.0, *seconds])
    return JobLines(swept, jobs, now=lambda: next(clock))


def served(name, rate, **more):
    return ResultRow(name, metrics={"requests_per_s": rate}, **more)


def test_a_line_names_what_varies_the_best_and_the_time_left():
    lines = lines_at((10.0, 20.0, 400.0), ["allocators.paged.block_size", "model"], 3)
    given = ["+workload=beam", "allocators.paged.block_size=16", "model=opt-13b"]
    rows = [served("paged", 2.0), served("virtual", 1.5), ResultRow("mine", "oom", "no room")]
    assert lines.line(given, rows) == (
        "[1/3] block_size=16 model=opt-13b: best paged 2.00 req/s, mine oom; 20 s left"
    )
    assert lines.line(given, rows[:1]).endswith(": paged 2.00 req/s; 10 s left")
    assert lines.line(given, rows[2:]).endswith(": mine oom; 7 min in all")


def test_a_swept_workload_is_named_and_outputs_that_differ_are_told():
    lines = lines_at((1.0, 2.0), ["workload"], 2)
    same = [served(name, 1.0, output_digest="sha256:" + "a" * 64) for name in ("a", "b")]
    assert "\n" not in lines.line(["+workload=beam"], same)
    other = [same[0], served("b", 1.0, output_digest="sha256:" + "b" * 64)]
    assert "workload=beam: best a" in (text := lines.line(["+workload=beam"], other))
    assert "outputs: the tokens differ" in text
