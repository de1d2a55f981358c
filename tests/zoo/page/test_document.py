"""What can be reported, and what is refused in one line."""

import json
from dataclasses import fields, replace

import pytest
from sample import HOST, sample_run

from onnxslim_bert.errors import DataError
from onnxslim_bert.job.report import Report
from onnxslim_bert.proof.documents import report_json
from onnxslim_bert.zoo.page.document import load_document
from onnxslim_bert.zoo.page.reduce import only, reductions


@pytest.fixture
def written(tmp_path):
    """The sample as the run.json of a folder."""
    (tmp_path / "run.json").write_text(json.dumps(report_json(sample_run())))
    return tmp_path


def test_a_folder_and_its_run_json_are_the_same_document(written):
    document = load_document(written)
    assert document == load_document(written / "run.json")
    assert document.run == sample_run()
    assert document.host["onnxruntime"]
    assert document.version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["does not exist", "onnxslim zoo run"]),
        ("{", ["is no JSON"]),
        ("[" * 100_000, ["is no JSON"]),
        ("[]", ["no run at all"]),
        ('{"schema": 1, "validations": []}', ["is no run"]),
        ('{"schema": 99, "sources": [], "rows": [], "zoo": ""}', ["schema 99"]),
        ('{"schema": 1, "sources": [], "rows": [], "zoo": ""}', ["no jobs"]),
        (
            '{"schema": 1, "sources": [{"name": "a"}], "rows": [], "zoo": ""}',
            ["is no run", "sources: item 0 is incomplete: needed", "sha256"],
        ),
        ('{"schema": 1, "sources": 3, "rows": [], "zoo": ""}', ["is no run"]),
    ],
)
def test_another_document_is_refused(tmp_path, text, words):
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError) as refused:
        load_document(path)
    for word in [str(path), *words]:
        assert word in str(refused.value)
    assert len(str(refused.value)) < 700


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="is no JSON"):
        load_document(path)


def test_a_job_of_a_model_that_is_not_there_is_refused(written):
    found = json.loads((written / "run.json").read_text())
    found["rows"][0]["model"] = "stranger"
    (written / "run.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="jobs of 'stranger' and no model of that name"):
        load_document(written)


@pytest.mark.parametrize("figure", [10**400, -(10**19), 1e300, -1e300], ids="abcd")
@pytest.mark.parametrize("place", [("result", "output_bytes"), ("timed", "latency", "median_ms"), ("seconds",)])
def test_figures_that_nobody_measured_are_refused(written, place, figure):
    found = json.loads((written / "run.json").read_text())
    inner = found["rows"][0]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = figure
    (written / "run.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="is no figure of a run"):
        load_document(written)


def test_older_and_newer_documents_are_read(written):
    """A field that is not known is passed over, one that has a default may lack."""
    found = json.loads((written / "run.json").read_text())
    found["mood"] = "good"
    for step in found["rows"][0]["result"]["steps"]:
        for name in ("nodes", "nbytes", "damage"):
            del step[name]
    (written / "run.json").write_text(json.dumps(found))
    assert load_document(written).run.rows[0].result.steps[0].damage is None


def test_the_report_of_quantize_is_a_run_of_one_job(tmp_path):
    """Its size, metric and latency are those of the row that is made of it."""
    path = tmp_path / "model.int8.json"
    row = sample_run().rows[0]
    document = single_document(row)
    path.write_text(json.dumps(document))
    run = load_document(path).run
    [source], [made] = run.sources, run.rows
    assert (source.name, made.recipe, made.target, made.status) == ("model", "model.int8", "cpu", "done")
    assert made.result.comparison == row.result.comparison
    assert made.result.output_bytes == row.result.output_bytes
    assert made.timed.latency == row.timed.latency
    assert source.timings["cpu"].source.latency == sample_run().sources[0].timings["cpu"].source.latency


def test_a_report_of_quantize_without_times_has_none(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(single_document(sample_run().rows[0]) | {"latencies": []}))
    run = load_document(path).run
    assert run.rows[0].timed is None
    assert run.sources[0].timings == {}


def test_the_document_here_has_the_fields_that_quantize_writes():
    written = {"schema", "onnxslim_bert", "host"} | {field.name for field in fields(Report)}
    assert single_document(sample_run().rows[0]).keys() == written


@pytest.mark.parametrize("change", [{"latencies": [3]}, {"steps": "x"}, {"deployment": None}, {"provenance": {}}])
def test_a_broken_report_of_quantize_is_refused(tmp_path, change):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(single_document(sample_run().rows[0]) | change))
    with pytest.raises(DataError, match="is no run"):
        load_document(path)


def single_document(row) -> dict:
    """As `onnxslim quantize` writes it."""
    result = report_json(row.result)
    before = report_json(sample_run().sources[0].timings["cpu"].source.latency)
    kept = ("source_bytes", "output_bytes", "provenance", "steps", "methods", "placement", "unproven", "proven_on")
    return {
        **{name: result[name] for name in ("schema", "onnxslim_bert", *kept, "comparison")},
        "host": report_json(HOST),
        "source": "exports/model.onnx",
        "output": "exports/model.int8.onnx",
        "saturating": None,
        "worst": result["worst"],
        "latencies": [before, report_json(row.timed.latency)],
        "buckets": {},
        "deployment": {"target": "cpu", "seq": [], "allow_fallback": False},
        "max_length": 128,
        "threads": 1,
        "seed": 0,
        "found": None,
        "weights_file": "",
        "unjudged": "",
        "gate": {"budgets": {"max_drop": 1.0}, "strict": False},
        "verdicts": [{"gate": "max-drop", "outcome": "met", "note": "0.1 points, wanted at most 1 points"}],
        "published": True,
    }


# parts of a run


def test_only_the_models_that_match_stay():
    run = only(sample_run(), ["*-l6-*", "sentence*"])
    assert [source.name for source in run.sources] == ["minilm-l6-sst2", "sentence-embedder"]
    assert {row.model for row in run.rows} == {"minilm-l6-sst2", "sentence-embedder"}


def test_a_pattern_that_matches_nothing_is_refused():
    with pytest.raises(DataError, match=r"no model is named bert-\*: the run has minilm-l6-sst2, stsb-cross-encoder"):
        only(sample_run(), ["bert-*"])


def test_every_reduction_has_less_and_says_so():
    sizes, words = [], []
    for left_out, run in reductions(sample_run()):
        sizes.append(len(json.dumps(report_json(run))))
        words.append(left_out)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert [bool(word) for word in words] == [False, True, True]


def test_a_reduction_leaves_what_judges_a_job():
    *_, (_, least) = reductions(sample_run())
    for row, whole in zip(least.rows, sample_run().rows, strict=True):
        assert replace(row, result=None) == replace(whole, result=None)
        assert (row.result and row.result.comparison) == (whole.result and whole.result.comparison)
