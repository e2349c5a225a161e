"""Deliberately worse allocators are caught and named; unchanged ones pass, timings included."""

import pytest

from harness.compare import compare_cases, load_cases
from harness.compare.__main__ import main
from harness.comparison import compose, prepare
from harness.comparison.variant import run_variant
from harness.results import describe_environment
from tests.results.directories import write_run

NAMES = {"contiguous_oracle", "paged", "virtual"}


def setup(workload, *overrides):
    """The configuration as saved, and a function that runs it: rows of the three allocators."""
    small = ["kv_tokens=9000", f"allocator=[{','.join(sorted(NAMES))}]", *overrides]
    prepared = prepare(compose(f"+workload={workload}", *small))

    def run():
        return [run_variant(prepared, name)[0] for name in prepared.config.allocators]

    return prepared.saved, run


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    path = tmp_path_factory.mktemp("baseline")
    config, run = setup("beam", "workload.num_requests=25")
    write_run(path, config, describe_environment(), run())
    return path


@pytest.mark.parametrize(
    ("allocator", "worse", "metric"),
    [
        ("contiguous_oracle", "LeakingContiguous", "internal_share"),
        ("paged", "CoarsePaged", "internal_share"),
        ("virtual", "CopyingVirtual", "sharing_saved"),
    ],
)
def test_a_worse_allocator_is_caught_and_named(
    allocator, worse, metric, baseline, tmp_path, capsys
):
    target = f"allocators.{allocator}._target_=tests.compare.worse.{worse}"
    config, run = setup("beam", "workload.num_requests=25", target)
    write_run(tmp_path, config, describe_environment(), run())
    assert main([str(baseline), str(tmp_path)]) == 1
    out = capsys.readouterr().out
    failing = [line.split() for line in out.splitlines() if "REGRESSION" in line]
    assert {words[0] for words in failing} == {"beam"}
    assert {words[1] for words in failing} == {allocator}
    assert metric in {words[2] for words in failing}


def test_unchanged_allocators_pass_twenty_times_out_of_twenty(tmp_path):
    """Eight repeats a side with their real timings, taken in turns so that all see one machine."""
    lengths = ["workload.prompt.high=64", "workload.output.high=64"]
    config, run = setup("uniform", "workload.num_requests=12", *lengths)
    environment = describe_environment()
    for repeat in range(8):
        for side in range(21):
            write_run(tmp_path / f"{side}" / f"{repeat}", config, environment, run())
    baseline = load_cases([tmp_path / "0"])
    assert len(baseline[0].environments) == 8
    for side in range(1, 21):
        judgement = compare_cases(baseline, load_cases([tmp_path / f"{side}"]))
        assert judgement.exit_status == 0, judgement.failures
        timed = [f for f in judgement.findings if f.metric == "allocator_us_per_step"]
        assert len(timed) == len(NAMES)
        assert all(finding.p is not None for finding in timed)
