"""What a process imports and composes, which is most of what a short run takes."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "matplotlib", "numba", "pandas", "pyarrow", "pyarrow.compute", "scipy", "seaborn", "torch",
    "triton",
)  # fmt: skip
RUN = """
import json, runpy, sys
composed = []
if sys.argv[1:] != ["--help"]:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl as Loader
    load = Loader.load_configuration
    Loader.load_configuration = lambda *a, **k: composed.append(1) or load(*a, **k)
sys.argv = ["harness", *sys.argv[1:]]
try:
    runpy.run_module("harness", run_name="__main__", alter_sys=True)
except SystemExit as end:
    print(json.dumps([end.code, len(composed), sorted(sys.modules)]), file=sys.stderr)
"""


def process_of(*arguments, cwd, asked=HEAVY):
    """Run the command; return its status, how often Hydra composed, and what of `asked` it took."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=cwd, capture_output=True, text=True
    )
    status, composed, modules = json.loads(done.stderr.splitlines()[-1])
    return status, composed, {name for name in asked if name in modules}


def test_help_and_a_refusal_import_nothing_that_draws_or_writes(tmp_path):
    asked = (*HEAVY, "hydra", "numpy")
    assert process_of("--help", cwd=tmp_path, asked=asked) == (0, 0, set())
    status, composed, heavy = process_of("+workload=beam", "seed=-1", cwd=tmp_path)
    assert (status, composed, heavy) == (2, 1, set())


@pytest.mark.parametrize("report", [pytest.param("none", marks=pytest.mark.further), "html"])
def test_a_run_is_composed_once_and_imports_what_it_uses(report, tmp_path):
    status, composed, heavy = process_of(
        "+workload=uniform", "workload.num_requests=2", "allocator=[paged]", f"report={report}",
        "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert (status, composed) == (0, 1)
    # Figures are drawn in any case; pandas would come with SciPy behind seaborn, or by itself
    # with any `pyarrow.array`.
    assert heavy == {"matplotlib", "pyarrow"}
    assert (tmp_path / "run" / "figures" / "latency.png").is_file()
    assert (tmp_path / "run" / "report.html").is_file() == (report == "html")
