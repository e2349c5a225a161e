"""What a knee is, and that the sweeps which check it are what they are said to be."""

import csv

import numpy as np
import pytest

from tests.places import ROOT
from tests.published.knee import SHOWN, latency_error, main, verdict
from tests.published.points import server
from tests.published.served import Served, requests_of, ruled_lengths
from tests.published.software import STUDIES
from tests.published.sweeps import (
    CURVES,
    HOST_FITS,
    Load,
    below,
    knee_of,
    profile_of,
    run,
    sides,
    take_off_of,
)

COUNTED = [row for curve in CURVES.values() if curve.counted for row in curve.rows]
SAME_CLIENT = [row for row in COUNTED if row.startswith("iog-")]


def load(at, served, e2e_ms, ours):
    return Load({}, at, Served(1, 1, e2e_ms, served), Served(1, 1, e2e_ms * ours, served))


def test_a_knee_is_where_throughput_stops_growing():
    # Served is what is sent, up to 5: 95 % of it lies between 4 and 8, at 4 x 2^0.75.
    assert knee_of([1, 2, 4, 8, 16], [1, 2, 4, 5, 5]) == pytest.approx(4 * 2**0.75)
    assert knee_of([4, 8, 16], [5, 5, 5]) == 4
    assert np.isnan(knee_of([1, 2, 4], [1, 2, 4]))  # never seen: it still grows
    assert np.isnan(knee_of([1, 2], [1, float("nan")]))
    assert np.isnan(knee_of([1], [1]))


def test_latency_takes_off_at_one_and_a_half_times_the_lightest():
    # As the square of the load from 2 on: 1.5 times at 2 x sqrt(1.5).
    assert take_off_of([1, 2, 4], [10, 10, 40]) == pytest.approx(2 * 1.5**0.5)
    assert np.isnan(take_off_of([1, 2, 4], [10, 11, 14]))


def test_only_loads_below_the_measured_knee_count():
    loads = [load(1, 1, 10, 1.0), load(4, 4, 11, 1.05), load(8, 4.1, 30, 3.0)]
    knee, ours = sides(loads, knee_of, "requests_per_s")
    assert knee == ours < 4
    assert [each.load for each in below(loads)] == [1]
    assert len(below(loads[:2])) == 2
    said = list(verdict({"4090-r1-llama-8b": loads}))
    assert said[-1] == "\nbelow saturation: 1 of 1 runs within 10% end to end"
    assert not list(verdict({"4090-llama-3-8b": loads}))  # was fitted on


def test_no_run_that_counts_took_part_in_a_fit():
    fitted = {point.name.split()[0] for study in STUDIES.values() for point in study.fitted_on()}
    fitted |= {row for host in HOST_FITS for row in host.rows}
    assert COUNTED
    assert not fitted & set(COUNTED)
    assert len(set(COUNTED)) == len(COUNTED)
    assert {*SHOWN} <= set(CURVES)
    assert not fitted & {row for study in STUDIES.values() for row in study.served}
    for curve in CURVES.values():
        assert curve.counted != bool(curve.why)


@pytest.mark.parametrize("host", HOST_FITS, ids=lambda host: "+".join(host.first))
def test_the_file_holds_what_the_fit_of_the_host_gives(host):
    """A step of Gauss and Newton from the file's constants goes nowhere."""
    shipped_us = np.array([getattr(profile_of(server(host.rows[0])), name) for name in host.first])

    def errors(values):
        constants = dict(zip(host.first, values.tolist(), strict=True))
        return np.array([latency_error(row, **constants) for row in host.rows])

    here = errors(shipped_us)
    moves = np.diag(0.2 * shipped_us)
    slopes = np.column_stack([errors(shipped_us + move) - here for move in moves]) / 0.2
    shares, *_ = np.linalg.lstsq(slopes, -here, rcond=None)
    assert np.abs(shares).max() < 0.1
    assert np.abs(here).max() < 0.03


@pytest.mark.parametrize("name", SAME_CLIENT[::6])
def test_a_stand_in_has_the_means_and_times_of_its_run(name):
    row = server(name)
    requests, first = requests_of(row)
    assert (first > 0) == (not name.endswith("-32"))  # 32 requests/s came first, to a cold cache
    assert requests.prompt_tokens[first:].mean() == pytest.approx(
        float(row["prompt_tokens_mean"]), rel=0.002
    )
    assert requests.output_tokens[first:].mean() == pytest.approx(
        float(row["output_tokens_mean"]), rel=0.002
    )
    last_s = float(requests.arrival_s[-1] - requests.arrival_s[first])
    assert last_s == pytest.approx(187.58 / float(row["rate_per_s"]), abs=0.01)
    duration_s = 200 / float(row["requests_per_s"])
    assert last_s < duration_s


def test_end_to_end_is_what_its_parts_sum_to():
    for name in SAME_CLIENT:
        cells = ("ttft_mean_ms", "itl_mean_ms", "e2e_mean_ms", "output_tokens_mean")
        first_ms, between_ms, e2e_ms, tokens = (float(server(name)[cell]) for cell in cells)
        assert e2e_ms == pytest.approx(first_ms + between_ms * (tokens - 1), rel=1e-4)


def test_lengths_by_rule_are_those_of_the_source():
    prompts, outputs = ruled_lengths()
    assert [*np.percentile(prompts, [50, 90])] == [3500, 10_000]
    assert [*np.percentile(outputs, [50, 90])] == [200, 400]
    assert (prompts + outputs).max() <= 12_000
    # Its throughput in tokens over that in requests, of 512 requests.
    row = server("syst-h200-qwen3-32b-capacity")
    tokens = float(row["output_tokens_per_s"]) / float(row["requests_per_s"])
    assert np.resize(outputs, 512).mean() == pytest.approx(tokens, rel=0.02)


def test_a_closed_loop_keeps_as_many_in_flight_as_it_says():
    one, four = (run(f"a100pcie-qwen32b-2048x512-c{n}") for n in (4, 8))
    for each in (one, four):
        in_flight = each.simulated.requests_per_s * each.simulated.e2e_ms / 1e3
        assert in_flight == pytest.approx(each.load, rel=0.02)


def test_a_constant_replaces_that_of_vllm_v1_alone():
    shorter = run("iog-h100pcie-qwq-32b-32", step_us=0.0, sequence_us=0.0).simulated
    assert shorter.e2e_ms < 0.97 * run("iog-h100pcie-qwq-32b-32").simulated.e2e_ms
    name = "nm0.5.0-a10g-mistral-7b-0.5"
    assert run(name, step_us=9e4).simulated == run(name).simulated


def test_what_is_unknown_is_one_line_and_status_2(capsys):
    for argument in ("4090", "steps_us=3", "step_us=abc"):
        assert main([argument]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert len(said.err.splitlines()) == 1


def test_the_readme_says_how_many_runs_there_are():
    with (ROOT / "results" / "published" / "servers.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        there_are = {row["id"] for row in csv.DictReader(file) if row["id"].startswith("iog-")}
    shown = {row for curve in CURVES.values() for row in curve.rows}
    assert there_are == {row for row in shown if row.startswith("iog-")}
