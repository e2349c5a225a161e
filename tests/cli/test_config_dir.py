"""Configurations in a folder of the user's own are checked before a run, as ours are."""

import pytest

from harness.cli.checks import check
from harness.cli.points import Points

TINY = ["+workload=uniform", "workload.num_requests=4", "allocator=[paged]", "hydra.run.dir=run"]
GPU = """\
name: Mine
memory_gb: 79.0
bandwidth_gb_s: 2039.0
tflops: 312.0
pcie_gb_s: 64.0
interconnect_gb_s: 300.0
"""


@pytest.fixture
def problem_of(tmp_path, monkeypatch):
    """What is said of `hardware=mine` where the user's folder holds this text or these bytes."""
    monkeypatch.chdir(tmp_path)

    def problem(content, *more, flag="--config-dir {}"):
        folder = tmp_path / "my, conf's" / "hardware"
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_bytes(
            content if isinstance(content, bytes) else content.encode()
        )
        flags = [part.format(folder.parent) for part in flag.split(" ")]
        found, _ = check([*TINY, "hardware=mine", *more, *flags], Points())
        return found

    return problem


@pytest.mark.parametrize("flag", ["--config-dir {}", "--config-dir={}", "-cd {}"])
def test_a_file_that_is_well_is_accepted(problem_of, tmp_path, flag):
    assert problem_of(GPU, flag=flag) is None
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: [Mine\n", "mine.yaml"),
        ("name: a: b\n", "mine.yaml"),
        ("name: !python/object:os.system x\n", "could not determine a constructor for the tag"),
        ("name: !mine x\n", "mine.yaml"),
        (b"\xff\xfe\x00\x01", "mine.yaml"),
        (b"name: \xe9\n", "mine.yaml is not UTF-8 text"),
        ("- a\n- b\n", "mine"),
        ("just text\n", "mine"),
        ("name: Mine\n", "hardware.memory_gb must be a positive number"),
        ("", "hardware.memory_gb must be a positive number"),
        (GPU + "colour: red\n", "colour"),
        (GPU.replace("79.0", "much"), "much"),
        (GPU.replace("79.0", "???"), "hardware.memory_gb"),
        (GPU.replace("79.0", "${no.such}"), "no.such"),
        (GPU + "defaults: [nothing]\n", "hardware=nothing: no such option"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_broken_file_is_one_line(problem_of, tmp_path, content, expected):
    problem = problem_of(content)
    assert problem is not None
    assert expected in problem
    assert "\n" not in problem
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_none_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for flags in (["--config-dir", "nowhere"], ["--config-dir=file"], ["--config-dir"], ["-cd="]):
        problem, _ = check([*TINY, *flags], Points())
        assert "must name a folder" in problem
        assert "\n" not in problem


def test_an_experiment_may_lie_there(problem_of, tmp_path):
    folder = tmp_path / "my, conf's" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nengine:\n  max_num_seqs: 0\n")
    assert "engine.max_num_seqs must be at least 1" in problem_of(GPU, "+experiment=mine")
