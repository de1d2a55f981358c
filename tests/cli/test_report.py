"""`onnxslim report` as a user meets it."""

import json
import sys

import pytest
from command_line import assert_refused, run
from sample import sample_run

from onnxslim_bert.proof.documents import report_json


@pytest.fixture
def out(tmp_path):
    """The folder of a run."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(report_json(sample_run())))
    return folder


@pytest.fixture
def extra():
    """Skips where the plotting library is not installed."""
    for name in ("altair", "vl_convert", "jinja2"):
        pytest.importorskip(name, reason="needs the extra [report]")


@pytest.mark.usefixtures("extra")
def test_it_writes_the_page_and_prints_the_summary(out, tmp_path):
    outcome = run("report", out, "-o", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("19 of 24 jobs on 4 models done;")
    assert outcome.out.endswith(f"{tmp_path / 'page.html'} written\n")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.usefixtures("extra")
def test_the_page_lies_in_the_folder_by_default_and_is_replaced_only_when_asked(out):
    assert run("report", out / "run.json").code == 0
    kept = (out / "report.html").read_bytes()
    assert_refused(run("report", out), "report.html exists", "--force")
    assert run("report", out, "--model", "minilm*", "--force").code == 0
    assert b"6 of 6 jobs on 1 model done" in (out / "report.html").read_bytes()
    assert (out / "report.html").read_bytes() != kept


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "run.json", "--force"], ["run.json is an input"]),
        (["-o", "no/such/page.html"], ["no folder"]),
        (["--model", "bert*"], ["no model is named bert*"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(out, monkeypatch, arguments, words):
    monkeypatch.chdir(out)
    before = sorted(out.iterdir())
    assert_refused(run("report", "run.json", *arguments), *words)
    assert sorted(out.iterdir()) == before


@pytest.mark.usefixtures("extra")
def test_a_folder_without_a_run_is_refused(tmp_path):
    assert_refused(run("report", tmp_path), "run.json does not exist", "onnxslim zoo run")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("missing", ["altair", "vl_convert", "jinja2"])
def test_without_the_plotting_library_it_says_what_to_install(out, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert_refused(run("report", out), f"needs {missing}", "pip install 'onnxslim-bert[report]'")
    assert not (out / "report.html").exists()
