"""A judgement as JUnit XML, which CI systems show as tests: a case is a suite, a metric a test."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from harness.compare.judgement import Judgement
from harness.compare.render import WORDS, describe

# XML 1.0 has no way to write these characters, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(judgement: Judgement) -> str:
    """Regressions are failures, what cannot be told is skipped, what is incomparable an error."""
    failing = {id(finding) for finding in judgement.failures}
    root = ElementTree.Element("testsuites", name="kv-harness compare")
    suites: dict[str, ElementTree.Element] = {}
    counts: dict[str, dict[str, int]] = {}

    def suite(name: str) -> ElementTree.Element:
        if name not in suites:
            suites[name] = ElementTree.SubElement(root, "testsuite", name=_clean(name))
            counts[name] = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        counts[name]["tests"] += 1
        return suites[name]

    for finding in judgement.findings:
        test = ElementTree.SubElement(
            suite(finding.case),
            "testcase",
            classname=_clean(f"{finding.case}.{finding.allocator}"),
            name=_clean(finding.metric),
        )
        text = _clean(describe(finding))
        if id(finding) in failing:
            ElementTree.SubElement(test, "failure", message=text, type=WORDS[finding.verdict])
            counts[finding.case]["failures"] += 1
        elif finding.verdict == "unsure":
            ElementTree.SubElement(test, "skipped", message=text)
            counts[finding.case]["skipped"] += 1
    for problem in judgement.problems:
        name = "could not compare"
        test = ElementTree.SubElement(suite(name), "testcase", classname=name, name=_clean(problem))
        ElementTree.SubElement(test, "error", message=_clean(problem), type="incomparable")
        counts[name]["errors"] += 1
    for name, element in suites.items():
        element.attrib.update({key: str(value) for key, value in counts[name].items()})
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(count[key] for count in counts.values())))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
