"""A run directory is empty, can be written, and belongs to one run alone."""

import os
import subprocess
import sys

import pytest

from harness.results import Claim, ResultsError


def test_a_directory_is_created_and_left_empty(tmp_path):
    path = tmp_path / "a" / "b"
    with Claim(path):
        assert path.is_dir()
    assert os.listdir(path) == []
    (path / "summary.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"not empty \(it holds summary.json\)"):
        Claim(path)
    assert os.listdir(path) == ["summary.json"]


def test_two_runs_at_once_are_one_too_many(tmp_path):
    code = "from harness.results import Claim; import sys; Claim(sys.argv[1])"
    with Claim(tmp_path):
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
        with pytest.raises(ResultsError, match="another run is writing there"):
            Claim(tmp_path)
    assert "another run is writing there" in other.stderr
    Claim(tmp_path).release()


def test_the_lock_of_a_run_that_died_holds_nobody_back(tmp_path):
    (tmp_path / ".lock").write_text("")
    Claim(tmp_path).release()
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_and_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="not a directory"):
        Claim(tmp_path / "file")
    with pytest.raises(ResultsError, match="cannot be written"):
        Claim(tmp_path / "file" / "below")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ResultsError, match="cannot be written: Permission denied"):
        Claim(tmp_path / "locked")
