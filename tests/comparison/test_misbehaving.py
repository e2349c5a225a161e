"""Whatever one allocator does: its row says what, and the others have theirs."""

import json
import signal

import pytest

import harness.results.writer as writer_module
from allocators.base import EMPTY_GRANT
from allocators.paged import Paged
from harness.cli.job import compare_and_show
from harness.cli.notes import Notes
from harness.comparison import compose, prepare, run_comparison

SMALL = ["+workload=uniform", "workload.num_requests=5", "kv_tokens=4000", "report=none"]


def compared(target, tmp_path, *more):
    """A comparison of a broken allocator, which comes first, and a good one."""
    knobs = f"+allocators.broken={{_target_: tests.comparison.broken.{target}}}"
    good = "+allocators.good={_target_: allocators.paged.Paged}"
    composed = compose(*SMALL, "allocator=[]", knobs, good, *more)
    return run_comparison(prepare(composed), tmp_path / "run")


def reason_beside_a_good_row(comparison):
    broken, good = comparison.rows
    assert (broken.allocator, broken.status, good.status) == ("broken", "error", "ok")
    assert not comparison.interrupted
    assert "\n" not in broken.reason
    return broken.reason


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("Exits", "SystemExit: 3 (broken.py:"),
        ("ExitsAtOnce", "SystemExit: no licence (broken.py:"),
        ("PressesCtrlC", "KeyboardInterrupt (broken.py:"),
    ],
)
def test_an_allocator_cannot_end_the_run(target, reason, tmp_path):
    assert reason in reason_beside_a_good_row(compared(target, tmp_path))


@pytest.mark.parametrize(
    ("call", "answer", "reason"),
    [
        ("admit", "5", "admit answered 5 instead of a Grant or None"),
        ("grow", "yes", "grow answered 'yes' instead of a Grant or None"),
        (
            "grow",
            "half",
            "grow granted copies=array([0, 0, 0]) instead of rows of three numbers, or of four",
        ),
        ("release", "none", "release answered None instead of a Grant"),
        ("begin_step", "none", "begin_step answered None instead of StepGrants"),
        (
            "begin_step",
            "empty",
            f"begin_step answered {repr(EMPTY_GRANT)[:57]}... instead of StepGrants",
        ),
        ("quiet_steps", "many", "quiet_steps answered 'many' instead of a whole number"),
        ("usage", "0.5", "usage answered 0.5 instead of a Usage"),
    ],
)
def test_a_wrong_answer_is_named_by_its_call(call, answer, reason, tmp_path):
    more = (f"+allocators.broken.call={call}", f"+allocators.broken.answer={answer}")
    assert reason_beside_a_good_row(compared("AnswersAnything", tmp_path, *more)) == reason


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no such signal")
def test_an_allocator_that_never_answers_is_stopped(tmp_path):
    before = signal.getsignal(signal.SIGALRM)
    comparison = compared("NeverAnswers", tmp_path, "harness.variant_timeout_s=0.3")
    reason = reason_beside_a_good_row(comparison)
    assert reason.startswith("stopped after harness.variant_timeout_s=0.3 (broken.py:")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_debug_switch_shows_where_it_was_raised(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as stop:
        compared("Exits", tmp_path)
    assert stop.traceback[-1].name == "grow"


def test_a_trace_is_written_of_a_variant_that_was_interrupted(tmp_path, monkeypatch):
    steps = []

    def interrupted(self, rows, n=1):
        steps.append(n)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return original(self, rows, n)

    original = Paged.grow
    monkeypatch.setattr(Paged, "grow", interrupted)
    composed = compose(*SMALL, "allocator=[paged,virtual]", "harness.trace=chrome")
    comparison = run_comparison(prepare(composed), tmp_path / "run")
    assert comparison.interrupted
    assert [row.status for row in comparison.rows] == ["error", "error"]
    events = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    assert any(event["ph"] == "X" for event in events)


def test_figures_that_cannot_be_drawn_cost_no_table_and_no_report(tmp_path, monkeypatch, capsys):
    import harness.report.charts as charts

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(charts, "write_figures", full)
    prepared = prepare(compose(*SMALL, "allocator=[paged]", "report=html"))
    assert compare_and_show(prepared, tmp_path / "run", Notes()) == 0
    shown = capsys.readouterr()
    assert "paged" in shown.out
    assert "note: no figures: OSError: [Errno 28] No space left on device\n" in shown.err
    assert (tmp_path / "run" / "report.md").exists()


@pytest.mark.parametrize("part", ["summary", "columns"])
def test_a_full_disk_costs_the_files_and_not_the_table(part, tmp_path, monkeypatch, capsys):
    import pyarrow.parquet

    def full(*given, **more):
        raise OSError(28, "No space left on device")

    owner, name = {
        "summary": (writer_module, "write_text"),
        "columns": (pyarrow.parquet.ParquetWriter, "write_table"),
    }[part]
    monkeypatch.setattr(owner, name, full)
    prepared = prepare(compose(*SMALL, "allocator=[paged,contiguous_max]"))
    assert compare_and_show(prepared, tmp_path / "run", Notes()) == 1
    shown = capsys.readouterr()
    assert "paged" in shown.out
    assert "contiguous_max" in shown.out
    assert shown.err.count("\n") == 1
    assert "No space left on device" in shown.err
    for path in (tmp_path / "run").iterdir():
        assert path.suffix != ".tmp"
        if path.name == "summary.json":
            json.loads(path.read_text())
