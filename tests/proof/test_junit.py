"""JUnit XML of verdicts, read back."""

import xml.etree.ElementTree as ET

from onnxslim_bert.proof.gates import Verdict
from onnxslim_bert.proof.junit import junit

VERDICTS = [
    Verdict("finite", "met", "all 7 rows"),
    Verdict("max-drop", "missed", '3 < 5 & "wide" > 1'),
    Verdict("min-agreement", "inconclusive", "90 %"),
]
mildly, strictly = (lambda verdict, strict=strict: verdict.fails(strict) for strict in (False, True))


def test_every_verdict_is_a_case():
    """One passed, one failed, one skipped, and the counts say so."""
    suite = ET.fromstring(junit("tiny", VERDICTS, mildly))[0]
    assert {key: suite.get(key) for key in ("name", "tests", "failures", "skipped", "errors")} == {
        "name": "tiny",
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    assert [(case.get("name"), case[0].tag) for case in suite] == [
        ("finite", "system-out"),
        ("max-drop", "failure"),
        ("min-agreement", "skipped"),
    ]


def test_strict_turns_inconclusive_into_a_failure():
    """And nothing is skipped."""
    suite = ET.fromstring(junit("tiny", VERDICTS, strictly))[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("2", "0")
    assert suite[2][0].get("type") == "inconclusive"


def test_markup_and_control_characters_survive_or_are_replaced():
    """What XML can hold is escaped, what it cannot is replaced."""
    suite = ET.fromstring(junit("a\x00<b>\x1b\ud800 & ü", VERDICTS, mildly))[0]
    assert suite.get("name") == r"a\x00<b>\x1b\ud800 & ü"
    assert suite[1][0].get("message") == '3 < 5 & "wide" > 1'


def test_no_verdicts_make_an_empty_suite():
    """Still well-formed."""
    assert ET.fromstring(junit("none", [], mildly))[0].get("tests") == "0"
