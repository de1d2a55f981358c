"""Verdicts as JUnit XML, the format that build servers read (https://github.com/testmoapp/junitxml)."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from typing import Any

from onnxslim_bert.errors import disarmed

# What XML 1.0 cannot hold, escaped or not.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(suite: str, verdicts: Sequence[Any], fails: Callable[[Any], bool]) -> bytes:
    """A test suite with one case a verdict: failed, skipped when inconclusive, or passed.

    verdicts: with a name, an outcome and a note each, like `gates.Verdict`.
    """
    failures = sum(map(fails, verdicts))
    skipped = sum(verdict.outcome == "inconclusive" and not fails(verdict) for verdict in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    root = ET.Element("testsuites", counts)
    element = ET.SubElement(root, "testsuite", {"name": _clean(suite), **counts})
    for verdict in verdicts:
        case = ET.SubElement(element, "testcase", {"classname": _clean(suite), "name": _clean(verdict.name)})
        note = _clean(verdict.note)
        if fails(verdict):
            ET.SubElement(case, "failure", {"type": verdict.outcome, "message": note})
        elif verdict.outcome == "inconclusive":
            ET.SubElement(case, "skipped", {"message": note})
        else:
            ET.SubElement(case, "system-out").text = note
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", disarmed(text))
