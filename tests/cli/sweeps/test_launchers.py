"""Hydra's launchers run sweeps for real, where they are installed: each gives the same table."""

import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from harness.results.outcome import read_outcome
from tests.cli.sweeps.small import command, problem, rows, sweep, table

SIZES = "allocators.paged.block_size=8,32"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The table of jobs that run one after another."""
    folder = tmp_path_factory.mktemp("basic")
    assert sweep(folder, SIZES) == 0
    return table(folder)


def needs(plugin, extra):
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"needs kv-harness[{extra}]")


def test_joblib_runs_jobs_beside_each_other(tmp_path, expected, capsys):
    needs("hydra_joblib_launcher", "joblib")
    assert sweep(tmp_path, SIZES, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == 0
    shown = capsys.readouterr()
    assert shown.out.count("/2] block_size=") == 2
    assert "jobs ran beside each other" in shown.err
    assert table(tmp_path) == expected


def test_submitit_runs_jobs_in_processes_of_their_own(tmp_path, expected):
    needs("hydra_submitit_launcher", "slurm")
    assert sweep(tmp_path, SIZES, "hydra/launcher=submitit_local") == 0
    assert table(tmp_path) == expected


def test_slurm_runs_jobs(tmp_path, expected):
    needs("hydra_submitit_launcher", "slurm")
    asked = shutil.which("sinfo") and subprocess.run(
        ["sinfo", "-h"], capture_output=True, text=True
    )
    if not asked or "idle" not in asked.stdout:
        pytest.skip("needs SLURM with an idle node (docs/sweeps.md starts one)")
    limits = ("hydra.launcher.timeout_min=5", "hydra.launcher.mem_gb=1")
    assert sweep(tmp_path, SIZES, "hydra/launcher=submitit_slurm", *limits) == 0
    assert table(tmp_path) == expected


CLUSTER = """
import time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


@pytest.fixture
def cluster():
    """The address of a Ray cluster of two nodes, one CPU each, on this machine."""
    needs("hydra_ray_launcher", "ray")
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    address = next(line for line in process.stdout if ":" in line and "." in line).strip()
    yield address
    process.communicate("\n", timeout=60)


def test_a_ray_cluster_of_two_nodes_runs_jobs(tmp_path, expected, cluster):
    given = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={cluster}")
    done = subprocess.run(
        command(tmp_path / "s", SIZES, *given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert table(tmp_path / "s") == expected
    # Nobody listens any more: a line at once, where Ray itself would try for minutes.
    start = time.monotonic()
    gone = ("hydra/launcher=ray", "hydra.launcher.ray.init.address=127.0.0.1:1")
    done = subprocess.run(
        command(tmp_path / "t", SIZES, *gone), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no Ray cluster answers there" in done.stderr
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - start < 60


def test_optuna_finds_the_best_within_a_limit(tmp_path, capsys):
    """And finds its way again when it is resumed; a point asked for twice runs once."""
    needs("hydra_optuna_sweeper", "optuna")
    folder = tmp_path / "s"
    search = (
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.sampler.seed=1", "workload.num_requests=16",
        "allocators.paged.block_size=choice(4,64)", "engine.max_num_seqs=choice(1,8)",
        "sweep.maximize=output_tokens_per_s",
    )  # fmt: skip
    assert sweep(folder, *search) == 0
    found = rows(folder)
    assert len(found) == 5
    points = {tuple(row["overrides"].values()) for row in found}
    assert len(points) <= 4
    assert len({read_outcome(folder / str(number)).seconds for number in range(5)}) == len(points)
    latencies = sorted(row["metrics"]["e2e_p99_s"] for row in found)
    limit = (latencies[0] + latencies[-1]) / 2
    assert latencies[0] < limit < latencies[-1]
    before = sorted(read_outcome(folder / str(number)).seconds for number in range(5))
    capsys.readouterr()
    assert sweep(folder, *search, f"sweep.at_most={{e2e_p99_s: {limit}}}", "sweep.resume=true") == 0
    kept = [row for row in rows(folder) if row["metrics"]["e2e_p99_s"] <= limit]
    best = max(kept, key=lambda row: row["metrics"]["output_tokens_per_s"])
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("best"))
    assert said.startswith(
        f"best: paged block_size={best['overrides']['allocators.paged.block_size']}"
    )
    again = {read_outcome(folder / str(number)).seconds for number in range(5)}
    assert set(before) & again, "no job was taken over"


def test_a_search_needs_to_know_what_for(tmp_path):
    needs("hydra_optuna_sweeper", "optuna")
    said = problem(tmp_path / "s", "hydra/sweeper=optuna", "engine.max_num_seqs=choice(1,8)")
    assert said.startswith("hydra/sweeper=optuna looks for the most of a metric: give it")
