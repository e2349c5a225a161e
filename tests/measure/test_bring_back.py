"""What comes back from a machine that is lent for minutes, and what it need not have."""

import shutil
import subprocess
import sys
import tarfile

import pytest

from harness.measure.__main__ import main
from tests.measure.test_command import fine, plan


def names(path):
    with tarfile.open(path) as archive:
        return sorted(name for name in archive.getnames() if name.endswith((".json", ".md")))


def test_the_archive_is_there_after_each_step_and_at_the_end(tmp_path, monkeypatch):
    target, seen = tmp_path / "back" / "records.tar.gz", []

    def killed(job):
        seen.append(names(target))
        raise SystemExit(9)

    plan(monkeypatch, environment=fine, kernels=fine, vmm=killed)
    out = tmp_path / "records"
    with pytest.raises(SystemExit):
        main(["device=cpu", f"out={out}", f"archive={target}"])
    assert seen == [["records/environment.json", "records/kernels.json"]]
    plan(monkeypatch, environment=fine)
    assert main(["device=cpu", f"out={out}", f"archive={target}"]) == 0
    assert "records/README.md" in names(target)
    assert {path.name for path in target.parent.iterdir()} == {target.name}


def test_an_archive_in_the_directory_that_it_archives_is_refused(tmp_path, capsys):
    assert main(["device=cpu", f"out={tmp_path}", f"archive={tmp_path}/a.tar.gz"]) == 2
    assert "must be a file outside of out=" in capsys.readouterr().err


def test_a_call_ends_well_within_ten_minutes_of_itself():
    from harness.measure.options import MeasureOptions
    from harness.measure.runner import START_S
    from harness.measure.subprocesses import GRACE_S, LEAST_GRACE_S

    assert MeasureOptions().limit_s + 2 * START_S + GRACE_S + LEAST_GRACE_S < 595


RUN = """
import sys
sys.modules["numba"] = None
from harness.__main__ import main
sys.exit(main())
"""


def test_a_real_run_needs_no_numba(tmp_path):
    arguments = [
        *("+workload=uniform", "model=llama-tiny", "executor=model", "executor.device=cpu"),
        *("executor.max_requests=1", "executor.pool_mib=64", "allocator=[paged]", "report=none"),
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '"backend": "reference"' in (tmp_path / "run" / "summary.json").read_text()
    shutil.rmtree(tmp_path / "run")
