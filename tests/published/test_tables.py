"""The tables of published measurements agree with themselves and with `conf/`."""

import csv
import math
import re

import pytest

from harness.comparison import compose, prepare
from tests.places import CONF, ROOT

TABLES = ROOT / "results" / "published"
FILES = sorted(TABLES.glob("*.csv"))
LATENCIES = ("ttft", "tpot", "itl", "e2e")
ANSWER = re.compile(r"(yes|partly: .+|no: .+|yes: .+)")


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


SERVERS = rows(TABLES / "servers.csv")
OPTIONS = sorted({row["options"] for row in SERVERS if row["options"]})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_is_whole_names_its_source_and_is_counted(path):
    table = rows(path)
    for number, row in enumerate(table, start=2):
        # DictReader files what is too much under None and fills up what is missing with None
        assert None not in row, f"{path.name}:{number}"
        assert None not in row.values(), f"{path.name}:{number}"
        assert row.get("source", "the README's"), f"{path.name}:{number}"
    readme = (TABLES / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| \[{re.escape(path.name)}\].* \| {len(table)} \|$", readme, re.M)
    if "source" not in table[0]:  # requests of a run, of which two may be alike
        assert "source" in line
    else:
        assert len({tuple(row.values()) for row in table}) == len(table)


@pytest.mark.parametrize("row", SERVERS, ids=lambda row: row["id"])
def test_latencies_are_numbers_in_order(row):
    for column in row:
        if column.endswith(("_ms", "_per_s", "_tokens_mean")) and row[column]:
            assert 0 < float(row[column]) < math.inf, column
    for latency in LATENCIES:
        cells = [row.get(f"{latency}_{part}_ms") for part in ("p50", "p90", "p99")]
        values = [float(cell) for cell in cells if cell]
        assert values == sorted(values), latency


def test_a_run_is_named_once_and_says_whether_it_can_be_simulated():
    assert len({row["id"] for row in SERVERS}) == len(SERVERS)
    for row in SERVERS:
        assert ANSWER.fullmatch(row["simulate"]), row["id"]
        if row["simulate"].startswith("yes"):
            assert row["options"], row["id"]


@pytest.mark.parametrize("group", ["model", "hardware"])
def test_what_a_run_is_built_from_is_shipped(group):
    named = {row[f"conf_{group}"] for row in SERVERS} - {""}
    assert named <= {path.stem for path in (CONF / group).glob("*.yaml")}
    for row in SERVERS:
        if row["options"]:
            assert f"{group}={row[f'conf_{group}']}" in row["options"].split(), row["id"]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_options_of_a_run_are_accepted(options):
    prepare(compose("+workload=sharegpt", "workload.num_requests=1", *options.split()))
