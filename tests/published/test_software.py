"""The shipped profiles are what the fit on the published tables gives, and their checks hold."""

from dataclasses import replace

import numpy as np
import pytest

from harness.cost import SoftwareSpec
from tests.places import CONF, shipped
from tests.published.points import server
from tests.published.served import serve
from tests.published.software import STUDIES, fit, served_errors

#: (mean error of the fit, of the check on points), rounded up; docs/software.md has the figures
MEAN_ERRORS = {
    "vllm-v1": (0.04, None),
    "vllm-v0": (0.07, 0.08),
    "vllm-2023": (0.06, 0.15),
    "sglang": (0.08, None),
    "fastertransformer": (0.07, 0.10),
}
#: runs of servers that took no part in a fit: three models on H100s, one synchronous on A100s
NEAR = ("infsim-60-1", "infsim-61-0", "infsim-65-0", "llmk8s-70b-tp8-04")


def profile_of(name):
    return shipped(SoftwareSpec, "software", name)


def test_every_profile_is_fitted_or_says_that_it_is_not():
    there_are = {path.stem for path in (CONF / "software").glob("*.yaml")}
    assert there_are == set(STUDIES) | {"nominal", "ideal"}
    for name in there_are:
        text = (CONF / "software" / f"{name}.yaml").read_text(encoding="utf-8")
        assert ("# Fitted on: " in text and "# Checked on: " in text) == (name in STUDIES)
        assert ("# Not fitted, not checked." in text) == (name not in STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_the_file_holds_what_the_fit_gives(name):
    study, profile = STUDIES[name], profile_of(name)
    # From other values than the file's, so that the fit cannot just return them.
    fitted = fit(study, replace(profile, **dict.fromkeys(study.free, 1.0)))
    for free in study.free:
        least = 1.0 if free.endswith("_us") else 0.0  # 1 us is nothing
        expected = pytest.approx(getattr(fitted, free), rel=0.01, abs=least)
        reason = f"{free}: run python -m tests.published.software {name}"
        assert getattr(profile, free) == expected, reason


@pytest.mark.parametrize("name", STUDIES)
def test_points_are_as_near_as_the_page_says(name):
    study = STUDIES[name]
    profile = replace(profile_of(name), **study.points_with)
    for points, most in zip(
        (study.fitted_on(), study.checked_on()), MEAN_ERRORS[name], strict=True
    ):
        assert bool(points) == (most is not None)
        errors = [abs(point.error(profile)) for point in points]
        assert most is None or most - 0.02 < np.mean(errors) < most


def test_no_run_is_both_fitted_on_and_checked_on():
    for study in STUDIES.values():
        fitted, checked = study.fitted_on(), study.checked_on()
        assert not {point.name for point in fitted} & {point.name for point in checked}
        ids = {point.name.split()[0] for point in fitted}
        assert not ids & set(study.served)


def test_servers_that_took_no_part_in_a_fit_are_served_within_ten_percent():
    study = STUDIES["vllm-v1"]
    near = {name: study.served[name] for name in NEAR}
    errors = [
        ours / measured - 1
        for _, what, measured, ours in served_errors(
            replace(study, served=near), profile_of("vllm-v1")
        )
        if what == "e2e_ms"
    ]
    assert len(errors) == len(near)
    assert max(map(abs, errors)) < 0.08
    # The hardware alone is no such match: what is tested is the profile.
    bare = serve(server("llmk8s-70b-tp8-01"), shipped(SoftwareSpec, "software", "ideal"))
    assert bare.e2e_ms > 1.1 * float(server("llmk8s-70b-tp8-01")["e2e_mean_ms"])


def test_the_first_vllm_reaches_the_throughput_that_was_measured():
    profile = profile_of("vllm-2023")
    for name, overrides in list(STUDIES["vllm-2023"].served.items())[:2]:
        row = server(name)
        ours = serve(row, replace(profile, **overrides)).requests_per_s
        assert ours == pytest.approx(float(row["requests_per_s"]), rel=0.07)
