"""No option is passed over in silence: what a real run does not read is said in a note."""

from harness.cli.ignored import ignored
from harness.comparison.config import Config
from harness.executors.spec import ExecutorSpec

GIVEN = ["+workload=beam", "model=opt-13b", "cost_model=calibrated", "hardware.memory_gb=80"]


def of(**executor):
    return ignored(Config(executor=ExecutorSpec(**executor)), GIVEN)


def test_a_simulated_run_reads_them_all():
    assert of() == []


def test_a_real_run_names_what_it_does_not_read():
    assert of(name="model") == [
        "cost_model=calibrated is not read by executor=model: its clock is the wall's",
        "hardware.memory_gb=80 is not read by executor=model: it serves on this machine",
    ]


def test_beside_a_checkpoint_the_model_is_not_read():
    assert of(name="model", weights="some/where")[0] == (
        "model=opt-13b is not read beside executor.weights: the model's shape is that of the "
        "checkpoint"
    )


def test_the_notes_are_printed_and_kept_with_the_results(tmp_path):
    from harness.cli.checks import check
    from harness.cli.points import Points
    from harness.comparison.config import compose

    overrides = [
        "+workload=uniform", "executor=model", "model=llama-tiny", "executor.device=cpu",
        "executor.max_requests=1", "workload.num_requests=1", "hardware=h200", "allocator=[paged]",
    ]  # fmt: skip
    points = Points()
    problem, _ = check([*overrides, f"hydra.run.dir={tmp_path}/a"], points)
    points.release()
    assert problem is None
    prepared = points.take(compose(*overrides), overrides)
    expected = "hardware=h200 is not read by executor=model: it serves on this machine"
    assert expected in prepared.notes
    assert expected in prepared.saved["notes"]
