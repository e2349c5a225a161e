"""The calibration file: read back as written, refused in one line when it does not fit."""

import json
from dataclasses import replace

import pytest

from harness.cost import Calibrated, CostError, CostSpec, HardwareSpec, Roofline, make_cost
from tests.cost.calibrations import SHAPE, TABLES, made_up
from tests.cost.steps import decode

COST = Calibrated(SHAPE, made_up())
HARDWARE = HardwareSpec(name="none")


def read(path, shape=SHAPE, hardware=HARDWARE):
    return make_cost(shape, hardware, CostSpec(name="calibrated", file=str(path)))


def test_a_file_that_was_written_gives_the_same_times(tmp_path):
    made_up().write(tmp_path / "c.json")
    work = decode(7, 900, block_tokens=16)
    assert read(tmp_path / "c.json").step_s(work) == COST.step_s(work)


def test_a_file_of_version_1_is_of_one_page_size(tmp_path):
    def older(record):
        record["schema_version"] = 1
        for name in ("decode", "prefill"):
            record["tables"][name]["paged"] = record["tables"][name]["paged"][0]["rows"]

    cost = read(broken(tmp_path, older))
    assert cost.page_sizes == [16]
    for block_tokens in (1, 16, 256):
        asked = decode(7, 900, block_tokens=block_tokens)
        assert cost.step_s(asked) == COST.step_s(decode(7, 900, block_tokens=16))


def test_fields_that_cost_nothing_may_differ(tmp_path):
    made_up().write(tmp_path / "c.json")
    other = replace(SHAPE, name="other", max_context=4096, tied_embeddings=False)
    assert read(tmp_path / "c.json", other).step_s(decode(1, 1)) == COST.step_s(decode(1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"layers": 3}, "layers=2 and the model has layers=3; python -m harness.measure.calibrate"),
     ({"dtype_bytes": 2}, "it computed in float32: model.dtype_bytes=4 agrees"),
     ({"ffn": 97}, "ffn=96 and the model has ffn=97")],
)  # fmt: skip
def test_another_model_is_refused_by_the_field_that_differs(tmp_path, change, message):
    made_up().write(tmp_path / "c.json")
    with pytest.raises(CostError, match=message):
        read(tmp_path / "c.json", replace(SHAPE, **change))


def broken(tmp_path, change):
    path = tmp_path / "c.json"
    record = json.loads(made_up().text())
    change(record)
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda r: r.update(schema_version=99), "schema_version 99 and this version reads 1 and 2"),
     (lambda r: r.update(kind="diary"), "is not a calibration made by"),
     (lambda r: r.pop("tables"), "not a whole calibration"),
     (lambda r: r.update(surprise=1), "not a whole calibration"),
     (lambda r: r["tables"].pop("copy"), "'copy': no 'copy'"),
     (lambda r: r["tables"]["linear"].update(seconds=[1.0]), "'linear': 3 amounts and 1 times"),
     (lambda r: r["tables"]["decode"].update(paged=[]), "'decode', paged: 0 amounts"),
     (lambda r: r["tables"]["decode"]["paged"][0].update(page_tokens=0), "paged: pages of .0. tok"),
     (lambda r: r["tables"]["decode"]["paged"][0].pop("rows"), "'decode', paged: no 'rows'"),
     (lambda r: r["tables"]["map"].pop("page_bytes"), "'map': no 'page_bytes'")],
)  # fmt: skip
def test_a_broken_file_is_refused_in_one_line(tmp_path, change, message):
    with pytest.raises(CostError, match=message) as refused:
        read(broken(tmp_path, change))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_or_no_json_or_not_given(tmp_path):
    with pytest.raises(CostError, match=r"cannot read the calibration .*no.json: No such file"):
        read(tmp_path / "no.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(CostError, match="is not a calibration: it is not JSON"):
        read(tmp_path / "c.json")
    with pytest.raises(CostError, match=r"needs cost_model.file=FILE, made by python -m"):
        make_cost(SHAPE, HARDWARE, CostSpec(name="calibrated"))


def test_one_device_and_one_of_two_models():
    with pytest.raises(CostError, match=r"hardware.count must be 1, got 2"):
        read("any", hardware=HardwareSpec(count=2))
    with pytest.raises(CostError, match="must be one of roofline, calibrated, got 'guess'"):
        make_cost(SHAPE, HARDWARE, CostSpec(name="guess"))
    with pytest.raises(CostError, match=r"cost_model.file is read by cost_model=calibrated only"):
        make_cost(SHAPE, HARDWARE, CostSpec(file="x"))


def test_the_roofline_is_what_it_was():
    hardware = HardwareSpec(
        "h", memory_gb=1, bandwidth_gb_s=100, tflops=1, pcie_gb_s=10, interconnect_gb_s=10
    )
    made, plain = make_cost(SHAPE, hardware, CostSpec()), Roofline(SHAPE, hardware, CostSpec())
    assert made.step_s(decode(3, 30)) == plain.step_s(decode(3, 30))


def test_the_tables_here_are_all_there_are():
    assert set(TABLES) == set(made_up().tables)
