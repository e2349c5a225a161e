"""The command: bad input is one line; a whole calibration of a tiny model, read back and used."""

import contextlib
import io
import json
from dataclasses import asdict, fields

import pytest
import torch

from harness.cost import Calibrated, CostSpec, HardwareSpec, Work, make_cost
from harness.cost.calibration import CURVES, load_calibration
from harness.cost.shapes import ModelShape
from harness.measure.calibrate import measure
from harness.measure.calibrate.__main__ import main
from harness.measure.calibrate.grids import Grid
from tests.inprocess import run_harness

TINY = ModelShape(
    name="Tiny", layers=2, hidden=32, heads=2, kv_heads=1, head_dim=16, ffn=48, vocab=64,
    max_context=512, tied_embeddings=True, dtype_bytes=4,
)  # fmt: skip
SMALL = Grid(
    tokens=(1, 16, 64), rows=(1, 4), batches=(1, 4), pages=(1, 64), served=(1, 4),
    context=(8, 1024), new=(1, 16, 4096),
    past=(0, 64), moved=(1, 16), table=(4, 1024), page_sizes=("64KiB", "2MiB"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    """A grid that is measured in a second, and a model that is served as fast."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "QUICK", SMALL)
    monkeypatch.setattr("harness.measure.calibrate.__main__.load_model", lambda name: TINY)
    monkeypatch.setattr("harness.measure.rounds.LEAST_SAMPLE_S", 1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["quick"], "'quick' is not OPTION=VALUE"),
     (["speed=3"], "unknown option speed; there are model, out"),
     (["device=tpu"], "device must be one of auto, cpu, cuda, got 'tpu'"),
     (["dtype=int8"], "dtype must be one of auto, float32"),
     (["backend=magic"], "backend must be one of auto, reference"),
     (["statistic=mean"], "statistic must be one of median, least"),
     (["repeats=0"], "repeats must be from 1 to 1000, got 0"),
     (["repeats=many"], "'many'"),
     (["page_tokens=1000"], "page_tokens must be from 1 to 512"),
     (["out=."], "is a directory; expected a file"),
     (["out=no/where.json"], "there is no directory no"),
     (["calibration=c.json", "compare=false"], "leaves nothing to do"),
     (["calibration=c.json", "out=d.json"], "nothing for out="),
     (["calibration=c.json"], "cannot read the calibration c.json")],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(arguments, message, capsys, tmp_path):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_there_is_named_with_those_that_are(capsys, monkeypatch):
    from harness.measure.options import load_model

    monkeypatch.setattr("harness.measure.calibrate.__main__.load_model", load_model)
    assert main(["model=lama"]) == 2
    assert "llama-tiny" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    from harness.measure.calibrate.options import CalibrateOptions

    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert [f.name for f in fields(CalibrateOptions) if f"\n  {f.name}=" not in said] == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file and the output of one run of the whole command."""
    out = tmp_path_factory.mktemp("calibration") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(measure, "QUICK", SMALL)
        patch.setattr("harness.measure.calibrate.__main__.load_model", lambda name: TINY)
        patch.setattr("harness.measure.rounds.LEAST_SAMPLE_S", 1e-5)
        arguments = ["quick=true", "device=cpu", "repeats=2", "requests=3", f"out={out}"]
        assert main(arguments) == 0
    return out, said.getvalue()


def numbers(value):
    """Return all lists of seconds in a table."""
    if isinstance(value, dict):
        own = [value["seconds"]] if "seconds" in value else []
        return own + [x for inner in value.values() for x in numbers(inner)]
    return [x for inner in value for x in numbers(inner)] if isinstance(value, list) else []


def test_every_table_is_measured_and_every_time_positive(written):
    tables = load_calibration(str(written[0])).tables
    assert set(tables) == {*CURVES, "decode", "prefill", "map", "unmap"}
    for name, table in tables.items():
        seconds = numbers(table)
        assert seconds, name
        assert all(len(s) for s in seconds), name
        # What is left over for the overhead may be nothing; everything else takes time.
        least = 0.0 if name == "overhead" else 1e-9
        assert all(least <= x < 60 for s in seconds for x in s), name


def test_the_amounts_are_those_that_the_model_and_its_tiles_allow(written):
    calibration = load_calibration(str(written[0]))
    assert calibration.row_tile == 16
    tables = calibration.tables
    assert tables["linear"]["tokens"] == [16, 64]  # 1 token is computed as 16
    assert tables["map"]["page_bytes"] == [65536, 2 << 20]
    assert tables["copy"]["bytes"] == [256, 4096]  # 2 layers x K, V x 16 x 4 bytes a token
    for name in ("decode", "prefill"):
        # 16 is that of the serving runs
        assert [part["page_tokens"] for part in tables[name]["paged"]] == [1, 16, 64]
    parts = [part["rows"] for part in tables["decode"]["paged"]]
    for rows in (tables["decode"]["contiguous"], *parts):
        assert [row["batch"] for row in rows] == [1, 4]
        assert rows[0]["context_tokens"] == [8, 512]
    for rows in (tables["prefill"]["contiguous"], tables["prefill"]["paged"][0]["rows"]):
        assert [row["past_tokens"] for row in rows] == [0, 64]
        assert rows[0]["new_tokens"] == [1, 16, 512]


def test_the_file_says_what_was_measured_where(written):
    record = json.loads(written[0].read_text())
    assert record["schema_version"] == 2
    assert record["model"]["hidden"] == 32
    assert record["model"]["dtype_bytes"] == 4
    assert (record["device"], record["dtype"], record["backend"]) == ("cpu", "float32", "cpu")
    assert (record["repeats"], record["statistic"], record["page_tokens"]) == (2, "median", 16)
    assert record["command"].startswith("python -m harness.measure.calibrate quick=true")
    assert record["command"].endswith(" out=tiny.json")  # and no folder of this machine
    assert record["environment"]["packages"]["torch"]


def test_steps_of_every_kind_are_compared_and_reported(written):
    comparison = json.loads(written[0].read_text())["comparison"]
    kinds = {error["steps"]: error for error in comparison["by_kind"]}
    assert {"prefill", "decode", "mixed", "with copies", "with maps", "all"} <= set(kinds)
    assert kinds["all"]["count"] == sum(error["count"] for error in comparison["by_run"])
    assert all(error["total_ratio"] > 0 for error in kinds.values())
    assert comparison["skipped"] == {}
    assert "| with copies" in written[1]
    assert "cost_model=calibrated cost_model.file=" in written[1]


def test_a_simulated_run_reads_the_file(written):
    cost = make_cost(TINY, HardwareSpec(), CostSpec(name="calibrated", file=str(written[0])))
    assert isinstance(cost, Calibrated)
    work = Work(decode_seqs=4, decode_context_tokens=64, sampled=4)
    assert cost.step_s(work) > 0


def simulate(cwd, file, *more):
    shape = {
        **{k: v for k, v in asdict(TINY).items() if k not in ("name", "family", "path")},
        **dict(more),
    }  # fmt: skip
    arguments = [
        "+workload=uniform", "workload.num_requests=5", "workload.prompt.high=64",
        "workload.output.high=64", "model=llama-tiny", "allocator=[paged,virtual]",
        "kv_tokens=65536", "report=none", "cost_model=calibrated", f"cost_model.file={file}",
        "hydra.run.dir=run", *(f"model.{name}={value}" for name, value in shape.items()),
    ]  # fmt: skip
    return run_harness(*arguments, cwd=cwd)


def test_the_command_that_simulates_reads_the_file(tmp_path, written):
    done = simulate(tmp_path, written[0])
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["config"]["cost_model"]["file"] == str(written[0])
    assert [row["status"] for row in summary["rows"]] == ["ok", "ok"]


def test_the_command_that_simulates_refuses_a_file_for_another_model(tmp_path, written):
    done = simulate(tmp_path, written[0], ("layers", 3))
    assert done.returncode == 2
    assert "was measured with layers=2 and the model has layers=3" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_file_for_other_threads_or_another_model_is_not_compared(written, capsys, monkeypatch):
    threads = torch.get_num_threads()
    try:
        assert main(["device=cpu", f"calibration={written[0]}", f"threads={threads + 1}"]) == 2
    finally:
        torch.set_num_threads(threads)
    assert f"measured with threads={threads}, not {threads + 1}" in capsys.readouterr().err
    assert main(["device=cpu", "dtype=bfloat16", f"calibration={written[0]}"]) == 2
    assert "dtype_bytes=4 and the model has dtype_bytes=2" in capsys.readouterr().err
