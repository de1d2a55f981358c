"""A search as pictures: every point and every layer is drawn, and what is no search is said."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import assert_refused, run

from onnxslim_bert.documents import plain
from onnxslim_bert.job.search.frontier import MeasuredPoint, SearchResult
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.rewriting.pruning.sites import Site
from onnxslim_bert.zoo.page.plots import chart, read_search

pytest.importorskip("altair", reason="needs the extra [report]")
pytest.importorskip("vl_convert", reason="needs the extra [report]")

POINTS = tuple(
    MeasuredPoint(f"recipe {number}", Path("m.onnx"), 30_000_000 - number, 5.0, 3.0 + number, 0.02 * number, 0.0, 0.5)
    for number in range(3)
)
TABLES = {
    "sensitivities": [
        {"site": Site("heads", (0,), 12, 32), "damage": {6: 0.2, 12: 0.0}},
        {"site": Site("heads", (1, 2), 12, 32), "damage": {6: 0.1, 12: 0.0}},
        {"site": Site("neurons", (0,), 1536, 1), "damage": {768: 0.3, 1536: 0.0}},
    ],
    "costs": {"anything": 1},
}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """The report of a search of three models, of which the second was chosen."""
    found = SearchResult(Targets(speedup=4.0), "calib, 9 rows", 20.0, POINTS, POINTS[1], TABLES)
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"schema": 1, "onnxslim_bert": "0", "found": plain(found)}))
    return path


def test_every_point_and_every_layer_is_drawn(report: Path) -> None:
    """As data: speed and damage of three points, one filled; shares of units left, by layer, for each kind."""
    charts = chart(*read_search(report))["vconcat"]
    points = charts[0]["data"]["values"]
    assert [(point["speedup"], point["damage"], point["chosen"]) for point in points] == [
        (3.0, 0.0, False),
        (4.0, 0.02, True),
        (5.0, 0.04, False),
    ]
    assert points[0]["said"] == "30.0 MB, drop 0.50"
    assert [each["title"] for each in charts[1:]] == [
        "sensitivity of heads, layer by layer",
        "sensitivity of neurons, layer by layer",
    ]
    assert charts[1]["data"]["values"] == [
        {"layer": "0", "kept": 50.0, "damage": 0.2},
        {"layer": "0", "kept": 100.0, "damage": 0.0},
        {"layer": "1, 2", "kept": 50.0, "damage": 0.1},
        {"layer": "1, 2", "kept": 100.0, "damage": 0.0},
    ]


def test_the_files_are_pictures(report: Path, tmp_path: Path) -> None:
    """SVG with the words in it, PNG by its first bytes; nothing is overwritten unasked."""
    svg, png = tmp_path / "search.svg", tmp_path / "search.png"
    assert run("report", report, "-o", svg).code == 0
    root = ElementTree.fromstring(svg.read_text())
    assert root.tag.endswith("svg")
    assert {"times the source's speed", "heads left, %", "30.0 MB, drop 0.50"} <= {
        text.strip() for text in root.itertext()
    }
    assert run("report", report, "-o", png).code == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    assert_refused(run("report", report, "-o", png), "exists")
    assert_refused(run("report", report, "-o", tmp_path / "x.svg", "--model", "a*"), "--model does nothing")


@pytest.mark.parametrize("found", [None, 3, {}, {"frontier": [{"recipe": 1}]}, {"tables": []}])
def test_what_is_no_search_is_refused(tmp_path: Path, found: object) -> None:
    """One line that names the file; no picture."""
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schema": 1, "found": found}))
    assert_refused(run("report", path, "-o", tmp_path / "x.svg"), "other.json is no report of a search")
    assert not (tmp_path / "x.svg").exists()
