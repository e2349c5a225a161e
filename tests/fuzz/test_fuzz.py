"""Whatever an option is set to: one line, or rows with a status, never a traceback."""

import gzip
import json
from functools import cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.checks import check
from harness.cli.help import groups
from harness.cli.points import Points
from harness.comparison import compose, prepare, run_comparison
from harness.errors import ConfigError
from tests.fuzz.options import KNOBS, TINY, context, numeric_options
from workloads.formats import FORMATS

VALUES = ("-1", "0", "nan", "inf", "1e30", str(10**30), "text")
OPTIONS = [*numeric_options(), *KNOBS]
STATUSES = {"ok", "oom", "unsupported", "error"}


@cache
def base(more):
    return compose(*TINY, *more)


def outcome(composed, tmp_path):
    """What becomes of a configuration: a line, or the statuses of its rows."""
    try:
        prepared = prepare(composed)
    except ConfigError as error:
        return str(error)
    comparison = run_comparison(prepared, tmp_path / "run")
    assert comparison.unsaved is None
    assert {row.status for row in comparison.rows} <= STATUSES
    for row in comparison.rows:
        assert row.status != "error", row.reason
    return [row.status for row in comparison.rows]


def contexts():
    return {(*context(option), *KNOBS.get(option, ())): option for option in OPTIONS}


@pytest.mark.parametrize("more", contexts(), ids=" ".join)
def test_what_an_option_is_tried_in_runs(more, tmp_path):
    """Else every value would be refused for another reason than its own."""
    assert outcome(base(more).copy(), tmp_path) == ["ok"]


def test_the_fuzz_knows_every_numeric_option():
    assert len(OPTIONS) == len(set(OPTIONS)) == 129
    assert len(OPTIONS) * len(VALUES) == 903
    assert {"seed", "cost_model.gemm_efficiency", "workload.turns.mean"} <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_a_number_is_refused_in_one_line_or_runs(option, tmp_path):
    parser = OverridesParser.create()
    composed = base((*context(option), *KNOBS.get(option, ()))).copy()
    for text in VALUES:
        try:
            OmegaConf.update(composed, option, parser.parse_override(f"{option}={text}").value())
        except OmegaConfBaseException:
            continue  # of another type; `test_a_command_line_...` shows what is said of it
        found = outcome(composed, tmp_path / text)
        if isinstance(found, str):
            assert found, f"{option}={text}"
            assert "\n" not in found, f"{option}={text}"


def problem_of(*overrides):
    problem, _ = check([*TINY, *overrides], Points())
    return problem


@pytest.mark.parametrize("text", VALUES)
@pytest.mark.parametrize("option", ["engine.max_len", "hardware.tflops"])
def test_a_command_line_with_a_bad_number_is_refused_in_one_line(
    option, text, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    problem = problem_of(f"{option}={text}")
    assert option in problem
    assert "\n" not in problem
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", [*groups(), "harness", "sampling", "allocators"])
@pytest.mark.parametrize("form", ["{}=null", "~{}", "{}=5", "{}=[]"])
def test_a_group_that_is_none_is_refused_in_one_line(form, group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = problem_of(form.format(group))
    assert problem
    assert "\n" not in problem
    assert not list(tmp_path.iterdir())


BYTES = {
    "empty": b"",
    "blank": b"\n\n",
    "binary": bytes(range(256)) * 8,
    "a zip cut short": gzip.compress(b"a,b\n1,2\n" * 999)[:40],
    "JSON cut short": json.dumps({"tables": [1, 2, {"a": "b"}]}).encode()[:-5],
    "JSON of something else": b'{"a": [1, null]}\n[]\n"x"\n',
    "a table of something else": b"a,b\n1,2\n",
    "a table of no numbers": b"num_prefill_tokens,num_decode_tokens\nx,\n",
    "a table of nonsense": b"num_prefill_tokens,num_decode_tokens\n-1,nan\n1e30,inf\n",
    "a line without end": b"[" * 100_000,
}
#: a file's option, and in what it counts
FILES = {
    **{
        f"trace {kind}": ("workload.path", (f"workload.format={kind}", "workload.num_requests=2"))
        for kind in ("auto", *FORMATS)
    },
    "lengths": ("workload.prompt.path", ("workload.prompt={kind: empirical, column: a}",)),
    "calibration": ("cost_model.file", ("cost_model=calibrated",)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_none_is_refused_in_one_line(kind, tmp_path):
    option, more = FILES[kind]
    paths = {name: tmp_path / f"{i}.csv" for i, name in enumerate(BYTES)}
    for name, content in BYTES.items():
        paths[name].write_bytes(content)
    (tmp_path / "folder").mkdir()
    paths |= {"missing": tmp_path / "nowhere", "a folder": tmp_path / "folder"}
    for name, path in paths.items():
        composed = base(more).copy()
        OmegaConf.update(composed, option, str(path))
        found = outcome(composed, tmp_path / "run")
        if isinstance(found, list):  # two columns of numbers are a table of lengths
            assert (kind, name) == ("lengths", "a table of something else")
        else:
            assert path.name in found, name
            assert "\n" not in found, name
            assert len(found) < 600, name


@pytest.mark.parametrize("name", ["missing", "no folder", "nothing", *BYTES])
def test_weights_that_are_none_are_refused_in_one_line(name, tmp_path):
    folder = tmp_path / "weights"
    if name == "no folder":
        folder.touch()
    elif name != "missing":
        folder.mkdir()
    if name in BYTES:
        (folder / "config.json").write_bytes(BYTES[name])
        (folder / "model.safetensors").write_bytes(BYTES[name])
    composed = base(("executor=model",)).copy()
    OmegaConf.update(composed, "executor.weights", str(folder))
    found = outcome(composed, tmp_path / "run")
    assert "weights" in found
    assert "\n" not in found
