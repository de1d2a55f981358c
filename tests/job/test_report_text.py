"""What people read of a search."""

from dataclasses import replace
from pathlib import Path

import pytest

from onnxslim_bert.job import report_text
from onnxslim_bert.job.report_text import saturation, searched, where
from onnxslim_bert.job.saturating import Saturating
from onnxslim_bert.job.search.frontier import MeasuredPoint, SearchResult
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.proof.class_losses import ClassLoss
from onnxslim_bert.rewriting.pruning.sites import Site
from onnxslim_bert.targets.placement import Left, Placement

POINT = MeasuredPoint("quantize-static", Path("small.onnx"), 9, 1.0, 2.0, 0.1, 0.1, 0.0)


def test_the_frontier_is_shown_with_and_without_distillation():
    """Each model has one number and one recipe, whichever table it is in."""
    whole = replace(POINT, recipe="whole")
    refitted = replace(POINT, recipe="refitted", speedup=4.0, damage=0.5)
    distilled = replace(POINT, recipe="distilled", speedup=4.5, damage=0.2)
    found = SearchResult(
        Targets(speedup=4.0), "rows, 9", 2.0, (whole, distilled), distilled, {}, refitted=(whole, refitted)
    )
    lines = list(searched(found))
    shown = [line.split()[:3] for line in lines if "MB" in line]
    assert shown == [["1", "2.00x", "0.0"], ["->", "2", "4.50x"], ["1", "2.00x", "0.0"], ["3", "4.00x", "0.0"]]
    assert lines.index("without distillation:") == 3
    assert lines[-3:] == ['1: -p "whole"', '2: -p "distilled"', '3: -p "refitted"']


def test_the_labels_of_which_the_chosen_model_loses_rows_are_told():
    found = SearchResult(Targets(speedup=2.0), "rows, 9", 2.0, (POINT,), POINT, {})
    plain, told = list(searched(found)), list(searched(replace(found, losses=(ClassLoss("good", 9, 2, 1, 3.0, 2.5),))))
    assert [line.split() for line in told if line not in plain][-1] == ["good", "9", "2", "1", "3.00", "2.50"]
    assert len(told) == len(plain) + 3


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


def test_what_keeps_nodes_off_a_provider_is_said_the_largest_group_first():
    left = [Left("a", "Where", "bool"), *(Left(str(i), op, "int64") for i, op in enumerate(("Mul", "Cast", "Mul")))]
    lines = list(where(Placement("CoreML", 3, 7, 2, tuple(left), predicted=True), "nothing was run on it"))
    assert lines == [
        "CoreML would take 3 of 7 nodes in 2 pieces (nothing was run on it)",
        "left to the CPU: 2 Mul, 1 Cast: int64",
        "left to the CPU: 1 Where: bool",
    ]


def test_of_many_reasons_the_first_are_said():
    left = tuple(Left(str(i), "Add", f"reason {i}") for i in range(9))
    assert list(where(Placement("CoreML", 0, 9, 0, left), ""))[-2:] == [
        "left to the CPU: 1 Add: reason 3",
        "and for 5 reasons more, which `onnxslim explain` says",
    ]


@pytest.mark.parametrize(
    ("sets", "said"), [(("AVX2",), "this CPU has no VNNI: int8 sums of 1 layer"), (("AVX-VNNI",), "made for")]
)
def test_sums_that_saturate_are_a_warning_where_they_do(monkeypatch, sets, said):
    """Elsewhere one line says for which CPUs the file is; without such layers there is none."""
    monkeypatch.setattr(report_text, "instruction_sets", lambda: sets)
    (line,) = saturation(Saturating(1, "layer 0", 0.1))
    assert line.startswith(said)
    assert "--reduce-range" in line
    assert list(saturation(Saturating(0, "", 0.0))) == []
