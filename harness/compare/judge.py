"""Baseline against current, metric by metric, and the verdict on each.

Exact metrics (memory, counts, simulated time) are compared exactly. Measured ones, which in a real
run are all but the emitted tokens, are called worse only if the test finds a difference at a level
corrected for the number of tests, and the whole interval of the ratio of medians lies beyond the
tolerance. Where the baseline's median is 0, the difference of the medians is held against the
absolute tolerance instead.
"""

from __future__ import annotations

from statistics import median

from harness.compare.conditions import (
    config_differences,
    environment_differences,
    first_few,
    full_identity,
    limit_differences,
    settings_differences,
)
from harness.compare.judgement import Finding, Judgement, Verdict
from harness.compare.load import Case, Number, Samples
from harness.compare.statistics import (
    mann_whitney_p,
    median_ratio,
    samples_needed,
    smallest_p,
)
from harness.compare.tolerance import EQUAL, Tolerances
from harness.results.metrics import BY_NAME, Metric
from harness.results.slo import COUNTS_GOOD

#: chance of one false alarm in a whole comparison, shared between its tests
LEVEL = 0.01


def compare_cases(
    baseline: list[Case],
    current: list[Case],
    tolerances: Tolerances | None = None,
    *,
    measured: bool = True,
    strict: bool = False,
) -> Judgement:
    """Judge every metric of every row. `measured=False` leaves those on a clock out."""
    result = Judgement(strict=strict)
    pairs, gone, added = _pair(baseline, current)
    comparable = []
    for old, new in pairs:
        differences = config_differences(old.config, new.config)
        if differences:
            result.problems.append(f"{old.name}: configuration differs: {first_few(differences)}")
        else:
            comparable.append((old, new))
    tests = _count_tests(comparable) if measured else 0
    judge = _Judge(tolerances or Tolerances(), LEVEL / max(1, tests), measured)
    for old, new in comparable:
        judge.case(old, new, result)
    for case in gone:
        for name in case.rows:
            note = "the case is not there any more"
            result.findings.append(_row_finding(case, name, "missing", case.rows[name], None, note))
    for case in added:
        for name, row in case.rows.items():
            result.findings.append(_row_finding(case, name, "new", None, row, "no baseline"))
    return result


def _pair(
    baseline: list[Case], current: list[Case]
) -> tuple[list[tuple[Case, Case]], list[Case], list[Case]]:
    """Cases that belong together: by configuration, else by name, else because no other is left."""
    pairs: list[tuple[Case, Case]] = []
    old, new = list(baseline), list(current)
    for key in (lambda case: full_identity(case.config), lambda case: case.name):
        waiting = {key(case): case for case in new}
        for case in list(old):
            partner = waiting.pop(key(case), None)
            if partner is not None:
                pairs.append((case, partner))
                old.remove(case)
                new.remove(partner)
    if len(old) == len(new) == 1:
        pairs.append((old.pop(), new.pop()))
    order = {id(case): place for place, case in enumerate(baseline)}
    return sorted(pairs, key=lambda pair: order[id(pair[0])]), old, new


def _count_tests(pairs: list[tuple[Case, Case]]) -> int:
    return sum(
        1
        for old, new in pairs
        for name, row in old.rows.items()
        for metric in row.metrics
        if name in new.rows and _is_measured(metric, old) and metric in new.rows[name].metrics
    )


def _is_measured(metric: str, case: Case) -> bool:
    """In a real run the clock decides who is batched with whom, and so every count."""
    if metric == "finished_requests":
        return False
    return metric in BY_NAME and (case.real or not BY_NAME[metric].deterministic)


class _Judge:
    def __init__(self, tolerances: Tolerances, level: float, measured: bool) -> None:
        self._tolerances = tolerances
        self._level = level
        self._measured = measured

    def case(self, old: Case, new: Case, result: Judgement) -> None:
        """Judge every row of a pair of cases that were run under the same conditions."""
        elsewhere = environment_differences([*old.environments, *new.environments])
        limits = limit_differences(old.config, new.config)
        if limits:
            result.remarks.append(
                f"{old.name}: limits differ ({first_few(limits)}): {' and '.join(COUNTS_GOOD)} are "
                "not compared"
            )
        foreign = False
        unstable: list[str] = []
        for name, row in old.rows.items():
            settings = settings_differences(old.config, new.config, name)
            if settings:
                text = f"{old.name} / {name}: settings differ: {first_few(settings)}"
                result.remarks.append(text)
            other = new.rows.get(name)
            if other is None:
                result.findings.append(_row_finding(old, name, "missing", row, None, "no row"))
                continue
            status = self._status(old, name, row, other)
            result.findings.append(status)
            if not (row.ok and other.ok):
                continue
            result.findings += _emitted(old, name, row, other)
            for metric, values in row.metrics.items():
                if limits and metric in COUNTS_GOOD:
                    continue
                finding = self._metric(old, name, metric, values, other, bool(elsewhere))
                if finding is not None:
                    result.findings.append(finding)
                    foreign |= finding.note == ENVIRONMENT_DIFFERS
                    if finding.note == BASELINE_DIFFERS:
                        unstable.append(f"{name}: {metric}")
        for name, row in new.rows.items():
            if name not in old.rows:
                result.findings.append(_row_finding(new, name, "new", None, row, "no baseline"))
        if unstable:
            result.problems.append(f"{old.name}: {BASELINE_DIFFERS}: {first_few(unstable)}")
        if foreign:
            result.problems.append(
                f"{old.name}: measured metrics: environment differs: {first_few(elsewhere)}"
            )

    def _status(self, case: Case, name: str, old: Samples, new: Samples) -> Finding:
        if old.status == new.status:
            verdict: Verdict = "same"
        elif old.ok:
            verdict = "worse"
        else:
            verdict = "better" if new.ok else "changed"
        return _row_finding(case, name, verdict, old, new, new.reason or "")

    def _metric(
        self, case: Case, name: str, metric: str, old: list[Number], other: Samples, elsewhere: bool
    ) -> Finding | None:
        known = BY_NAME.get(metric)
        measured = _is_measured(metric, case)
        if known is None or (measured and not self._measured):
            return None
        finding = Finding(
            case.name, name, metric, "same", unit=known.unit, direction=known.direction
        )
        new = other.metrics.get(metric)
        if new is None:
            finding.verdict, finding.note = "missing", "the metric is not there any more"
            finding.baseline = old[0]
            return finding
        if not measured:
            return self._exact(finding, known, old, new)
        return self._clock(finding, known, old, new, elsewhere)

    def _exact(
        self, finding: Finding, known: Metric, old: list[Number], new: list[Number]
    ) -> Finding:
        finding.baseline, finding.current = old[0], new[0]
        if not all(_equal(value, new[0]) for value in new):
            finding.verdict, finding.note = "worse", "differs between repeats of one configuration"
            return finding
        if not all(_equal(value, old[0]) for value in old):
            # Which of its values counts would depend on the order of the files.
            finding.verdict, finding.note = "unsure", BASELINE_DIFFERS
            return finding
        before, after = old[0], new[0]
        if _equal(before, after):
            return finding
        if before is None or after is None:
            finding.verdict = "changed"
            finding.note = "was undefined" if before is None else "is undefined now"
            return finding
        finding.change = (after - before) / abs(before) if before else None
        if known.direction == "none":
            finding.verdict = "changed"
            return finding
        worsening = after - before if known.direction == "lower" else before - after
        if worsening < 0:
            finding.verdict = "better"
        elif self._tolerances.of(known.name).allows(before, worsening):
            finding.verdict = "tolerated"
        else:
            finding.verdict = "worse"
        return finding

    def _clock(
        self,
        finding: Finding,
        known: Metric,
        old: list[Number],
        new: list[Number],
        elsewhere: bool,
    ) -> Finding:
        before = [float(value) for value in old if value is not None]
        after = [float(value) for value in new if value is not None]
        finding.baseline = median(before) if before else None
        finding.current = median(after) if after else None
        ratio = median_ratio(before, after) if before and after else None
        if before == after and ratio is None:
            return finding
        if not before or not after:
            finding.verdict = "unsure"
            return finding
        if ratio is not None:
            finding.change, finding.interval = ratio[0] - 1, (ratio[1], ratio[2])
        if smallest_p(len(before), len(after)) >= self._level:
            finding.verdict = "unsure"
            finding.note = (
                f"{len(before)} and {len(after)} samples; "
                f"{samples_needed(self._level)} a side could tell"
            )
            return finding
        if elsewhere:
            finding.verdict, finding.note = "unsure", ENVIRONMENT_DIFFERS
            return finding
        finding.p = mann_whitney_p(before, after)
        tolerance = self._tolerances.of(known.name)
        if ratio is None:
            # Nothing is a multiple of a median of 0: the difference itself counts.
            difference = median(after) - median(before)
            upward, downward = difference > tolerance.absolute, -difference > tolerance.absolute
            if finding.p >= self._level:
                finding.verdict = "unsure"
        else:
            slack = max(tolerance.relative, tolerance.absolute / median(before))
            upward, downward = ratio[1] > 1 + slack, ratio[2] < 1 / (1 + slack)
        if finding.p < self._level and (upward or downward):
            if known.direction == "none":
                finding.verdict = "changed"
                return finding
            finding.verdict = "worse" if upward == (known.direction == "lower") else "better"
        return finding


def _emitted(case: Case, name: str, old: Samples, new: Samples) -> list[Finding]:
    """Compare what real runs emitted; which of two answers is the better one nobody here knows."""
    if not (old.digests and new.digests):
        return []
    same = old.digests == new.digests and len(new.digests) == 1
    before, after = ("; ".join(sorted(digests)) for digests in (old.digests, new.digests))
    verdict: Verdict = "same" if same else "changed"
    note = "" if same else "other tokens were emitted"
    return [Finding(case.name, name, "output_digest", verdict, before, after, note=note)]


ENVIRONMENT_DIFFERS = "environment differs"
BASELINE_DIFFERS = "the baseline's repeats differ"


def _equal(a: Number, b: Number) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return abs(a - b) <= EQUAL * max(abs(a), abs(b))


def _row_finding(
    case: Case, name: str, verdict: Verdict, old: Samples | None, new: Samples | None, note: str
) -> Finding:
    before = None if old is None else old.status
    after = None if new is None else new.status
    return Finding(case.name, name, "status", verdict, before, after, note=note)
