"""What goes wrong in a sweep is one clear line, and nothing that has finished is lost."""

import signal
import subprocess
import threading
import time

import pytest

import harness.results.writer as writer_module
from harness.cli.sweeps.checks import check_cluster
from harness.cli.sweeps.clock import on_this_machine
from harness.errors import ConfigError
from tests.cli.sweeps.small import command, ended, problem, rows, sweep

#: an allocator that kills its process: always with blocks of 16, once with blocks of 32
DEADLY = """
import os, signal
from pathlib import Path
from allocators.paged import Paged

class Deadly(Paged):
    def __init__(self, geometry, block_size=16, **more):
        super().__init__(geometry, block_size=block_size, **more)
        self.size, self.log = block_size, Path(__file__).with_suffix(".log")

    def admit(self, *given, **more):
        if self.size == 16 or (self.size == 32 and not self.log.exists()):
            if self.size == 32:
                self.log.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().admit(*given, **more)
"""


def test_a_killed_worker_loses_its_own_job_alone(tmp_path, monkeypatch, capsys):
    """The job is tried once more, alone; what kills its worker again is a row that says so."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs kv-harness[joblib]")
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown()  # workers of another test would not find the module
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    sizes = "allocators.paged.block_size=8,16,32,64"
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    given = ("allocators.paged._target_=deadly.Deadly", sizes, *launcher)
    assert sweep(tmp_path / "s", *given) == 1
    shown = capsys.readouterr()
    assert "note: a worker was lost (hydra/launcher=joblib: TerminatedWorkerError: " in shown.err
    assert "error: job 1: its worker was killed while it ran, twice" in shown.err
    assert "Traceback" not in shown.err
    found = [(row["allocator"], row["status"]) for row in rows(tmp_path / "s")]
    assert found == [("paged", "ok"), ("-", "error"), ("paged", "ok"), ("paged", "ok")]


def test_after_sigterm_there_is_a_table_of_what_has_finished(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs kv-harness[joblib]")
    folder = tmp_path / "s"
    seeds = ("seed=range(0,10)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = subprocess.Popen(
        command(folder, *seeds), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(ended(folder)) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    done = len(ended(folder))
    assert 2 <= done < 10
    assert sum(row["status"] == "ok" for row in rows(folder)) == done
    assert f"note: {10 - done} of 10 jobs are missing; the same command with " in errors
    assert f"sweep.resume=true hydra.sweep.dir={folder}" in errors
    assert "Traceback" not in errors


def test_a_full_disk_costs_the_jobs_that_it_stops(tmp_path, monkeypatch, capsys):
    write, full = writer_module.write_text, threading.Event()

    def write_until_full(path, text):
        if full.is_set():
            raise OSError(28, "No space left on device")
        write(path, text)
        full.set()

    monkeypatch.setattr(writer_module, "write_text", write_until_full)
    assert sweep(tmp_path / "s", "seed=1,2") == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if "No space left on device" in line]
    assert [line.partition(": ")[2][:5] for line in lines] == ["job 1"]
    assert [row["status"] for row in rows(tmp_path / "s")] == ["ok", "error"]
    monkeypatch.setattr(writer_module, "write_text", write)
    before = ended(tmp_path / "s")["0"]
    assert sweep(tmp_path / "s", "seed=1,2", "sweep.resume=true") == 0
    assert ended(tmp_path / "s")["0"] == before
    assert [row["status"] for row in rows(tmp_path / "s")] == ["ok"] * 2


def test_a_disk_without_room_stops_a_sweep_in_a_line(tmp_path, capsys):
    """A real one, of 200 KiB, where this process may mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        status = sweep(disk / "s", "seed=range(0,5)")
        kept = ended(disk / "s")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    shown = capsys.readouterr()
    assert status == 1
    assert 1 <= len(kept) < 5
    assert "No space left on device" in shown.err
    assert shown.out.count("paged ") >= len(kept)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    assert "cannot be written" in problem("/dev/null/s", "seed=1,2")
    assert "\n" not in problem("/dev/null/s", "seed=1,2")


def test_a_cluster_that_is_not_there_is_one_line():
    with pytest.raises(ConfigError, match=r"address=127\.0\.0\.1:1: no Ray cluster answers there"):
        check_cluster("127.0.0.1:1")
    for found_by_ray in (None, "auto", "local"):
        check_cluster(found_by_ray)


def test_what_is_measured_on_a_clock_waits_until_it_is_alone(tmp_path):
    lock, order = tmp_path / "lock", []
    begun = threading.Event()

    def simulated():
        begun.set()
        with on_this_machine(alone=False, lock=lock):
            order.append("simulated")

    with on_this_machine(alone=True, lock=lock):
        thread = threading.Thread(target=simulated)
        thread.start()
        begun.wait()
        time.sleep(0.05)
        order.append("measured")
    thread.join()
    assert order == ["measured", "simulated"]


def test_a_real_run_refuses_to_share_one_machine(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs kv-harness[joblib]")
    real = ("executor=model", "executor.device=cpu", "seed=1,2", "hydra/launcher=joblib")
    said = problem(tmp_path / "s", *real)
    assert "executor=model measures on a clock, and hydra/launcher=joblib runs jobs beside" in said
    assert "\n" not in said
    assert problem(tmp_path / "s", *real, "hydra.launcher.n_jobs=1") is None
