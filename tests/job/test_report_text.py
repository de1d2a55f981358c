"""What people read of a search."""

from pathlib import Path

import pytest

from onnxslim_bert.job.report_text import searched
from onnxslim_bert.job.search.frontier import MeasuredPoint, SearchResult
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.rewriting.pruning.sites import Site

POINT = MeasuredPoint("quantize-static", Path("small.onnx"), 9, 1.0, 2.0, 0.1, 0.1, 0.0)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("heads", "neurons"), []),
        (("neurons",), ["heads were not searched: prune-heads says why"]),
        ((), ["heads were not searched: prune-heads says why", "neurons were not searched: prune-ffn says why"]),
    ],
    ids=str,
)
def test_what_a_search_could_not_narrow_is_said(kinds, expected):
    tables = {"sensitivities": [{"site": Site(kind, (0,), 6, 2), "damage": {}} for kind in kinds]}
    found = SearchResult(Targets(speedup=2.0), "rows, 9", 2.0, (POINT,), POINT, tables)
    assert [line for line in searched(found) if "not searched" in line] == expected
