"""Beside another package named `kernels`, as Hugging Face's is, the harness finds its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = ["+workload=uniform", "workload.num_requests=3", "allocator=[paged]", "report=none"]


@pytest.fixture
def foreign(tmp_path):
    """A folder with a distribution named kernels, as an installer leaves it."""
    (tmp_path / "site" / "kernels").mkdir(parents=True)
    (tmp_path / "site" / "kernels" / "__init__.py").write_text("def get_kernel(name): ...\n")
    info = tmp_path / "site" / "kernels-0.12.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.12.1\n")
    (info / "RECORD").write_text("kernels/__init__.py,,\n")
    return tmp_path / "site"


def python(*arguments, path, cwd):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
    )  # fmt: skip


def test_a_run_finds_its_own_packages_first(foreign, tmp_path):
    run = f"hydra.run.dir={tmp_path}/run"
    done = python("-m", "harness", *RUN, run, path=[foreign, ROOT], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    code = "import harness, kernels.rows; print(kernels.__file__)"
    done = python("-c", code, path=[foreign, ROOT], cwd=tmp_path)
    assert Path(done.stdout.strip()).parents[1] == ROOT


def test_a_package_that_was_imported_before_is_named_with_the_remedy(foreign, tmp_path):
    code = "import kernels; from harness.__main__ import main; main()"
    done = python("-c", code, path=[foreign, ROOT], cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the package kernels is taken from {foreign}/kernels")
    assert "import harness before it" in line


def test_a_distribution_installed_over_ours_is_named_with_the_remedy(foreign, tmp_path):
    for name in ("harness", "allocators", "conf", "workloads"):
        shutil.copytree(ROOT / name, foreign / name)
    done = python("-m", "harness", "--help", path=[foreign], cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "another distribution named kernels is installed over" in done.stderr
