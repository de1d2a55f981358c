"""A record at the end of a model changes nothing else, says what was measured, and is the same every time."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import run, run_process, workspace
from onnx.external_data_helper import convert_model_to_external_data

from onnxslim_bert.errors import DataError, ModelError, OutputError
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.measured import Answers, Asked, Measured, read, record
from onnxslim_bert.job.trailer import content_end, content_sha256, write_trailer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.recipes.provenance import KEY, MEASURED, Provenance, stamp

ANSWERS = Answers("rows.tsv", "all", 24, "ab" * 32, "logits", "accuracy", 50.0, 48.5, 97.25, 0.03, "cpu")
SOURCES = Sources("data/calib.tsv", "/tmp/eval.tsv", 30, None, ("sentence",), "label", None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with provenance, and without a record."""
    source = workspace(tmp_path)
    made = Model.load(source)
    stamp(made, Provenance.of(source, "ab", "fuse", None))
    made.save(tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def measured(path: Path) -> Measured:
    """A full record of the file as it is."""
    verdicts = [Verdict("max-size", "met", "1 MB"), Verdict("min-speedup", "met", "2.31x, a time")]
    asked = Asked.of(SOURCES, evaluated=True)
    unsealed = Measured(1, "", "", "", "cpu", False, 128, 2, 5, asked, Budgets(max_size=9), False, {}, ANSWERS)
    return unsealed.sealing(path, verdicts)


def answers(path: Path) -> list[np.ndarray]:
    """What ONNX Runtime makes of a fixed input."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = np.arange(12).reshape(2, 6) % 7 + 1
    feeds = {
        i.name: (ids if i.name == "input_ids" else np.ones_like(ids) * (i.name == "attention_mask"))
        for i in session.get_inputs()
    }
    return session.run(None, feeds)


# the file


def test_a_record_is_appended_and_nothing_else_changes(model):
    """The file begins with what it was; ONNX and ONNX Runtime read it as before."""
    before, said = model.read_bytes(), answers(model)
    record(model, measured(model))
    assert model.read_bytes()[: len(before)] == before
    assert len(model.read_bytes()) > len(before)
    onnx.checker.check_model(str(model))
    assert all((a == b).all() for a, b in zip(said, answers(model), strict=True))
    assert {entry.key for entry in onnx.load(model).metadata_props} == {KEY, MEASURED}


def test_what_is_read_is_what_was_written(model):
    wanted = measured(model)
    record(model, wanted)
    provenance, found = read(model)
    assert found == wanted
    assert (provenance.source, provenance.recipe) == ("model.onnx", "fuse")


def test_the_content_is_the_file_without_its_record(model):
    """sha256 of the bytes before, whether the record is there or not."""
    before = model.read_bytes()
    wanted = hashlib.sha256(before).hexdigest()
    assert content_sha256(model, MEASURED) == wanted
    record(model, measured(model))
    assert content_sha256(model, MEASURED) == wanted
    assert content_end(model, MEASURED) == len(before)


def test_a_second_record_takes_the_place_of_the_first(model):
    record(model, measured(model))
    once = model.read_bytes()
    record(model, replace(measured(model), seed=77))
    record(model, measured(model))
    assert model.read_bytes() == once


def test_external_data_belong_to_the_content(model):
    """A weight beside the file counts; the record stays in the file."""
    proto = onnx.load(model)
    convert_model_to_external_data(proto, location="weights.bin", size_threshold=64)
    onnx.save(proto, model.parent / "outside.onnx")
    outside, weights = model.parent / "outside.onnx", model.parent / "weights.bin"
    wanted = hashlib.sha256(outside.read_bytes() + weights.read_bytes()).hexdigest()
    record(outside, measured(outside))
    assert read(outside)[1].content_sha256 == content_sha256(outside, MEASURED) == wanted
    damaged = bytearray(weights.read_bytes())
    damaged[100] ^= 1
    weights.write_bytes(damaged)
    assert content_sha256(outside, MEASURED) != wanted


def test_a_file_that_another_tool_wrote_again_has_another_content(model):
    """The same model, its fields in another order."""
    record(model, measured(model))
    wanted = read(model)[1].content_sha256
    onnx.save(onnx.load(model), model)
    assert read(model)[1].content_sha256 == wanted
    assert content_sha256(model, MEASURED) != wanted


def test_a_record_that_does_not_end_the_file_is_content(model):
    """Something was appended after it."""
    record(model, measured(model))
    with model.open("ab") as file:
        file.write(onnx.ModelProto(doc_string="later").SerializeToString())
    assert content_end(model, MEASURED) == model.stat().st_size


def test_a_new_model_does_not_keep_the_record_of_its_source(model):
    record(model, measured(model))
    again = Model.load(model)
    stamp(again, Provenance.of(model, "ab", "none", None))
    again.save(model.parent / "again.onnx")
    assert read(model.parent / "again.onnx")[1] is None


def test_a_full_disk_is_said(model, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"small.onnx: cannot be written \(No space left on device\)"):
        record(model, measured(model))


# what it says


def test_data_files_are_known_by_name_alone():
    """Where they lay is nobody's business, and no part of the bytes."""
    found = Asked.of(SOURCES, evaluated=True)
    assert (found.calibration, found.evaluation, found.corpus) == ("calib.tsv", "eval.tsv", "")
    assert (found.rows, found.text_columns, found.label_column) == (30, ("sentence",), "label")


@pytest.mark.parametrize(("evaluated", "wanted"), [(True, "sst2"), (False, "")])
def test_the_set_that_was_evaluated_by_default_is_named(evaluated, wanted):
    assert Asked.of(Sources("sst2"), evaluated).evaluation == wanted


def test_no_time_is_recorded(model):
    """A budget for the speed-up is; how it came out is a matter of the machine."""
    found = measured(model)
    assert found.outcomes == {"max-size": "met"}
    assert "2.31" not in json.dumps(asdict(found))


def test_the_same_input_gives_the_same_bytes_in_every_process(tmp_path):
    """Two processes with other hash seeds, in other folders, and under other load."""
    written = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        source = workspace(folder)
        outcome = run_process(
            *("quantize", source, "--calib", folder / "calib.tsv", "--data", folder / "eval.tsv"),
            *("--max-drop", "90", "--min-speedup", "0.01", "--method", "minmax"),
            PYTHONHASHSEED=seed,
        )
        assert outcome.code == 0, outcome
        written.append((folder / "model.int8.onnx").read_bytes())
        seen = read(folder / "model.int8.onnx")[1]
        assert seen.answers.rows == 24
        assert seen.outcomes == {"finite": "met", "max-drop": "met"}
    assert written[0] == written[1]


# hostile and foreign files


def test_a_model_of_another_tool_has_no_provenance(tmp_path):
    with pytest.raises(ModelError, match="has no provenance: onnxslim did not write it"):
        read(workspace(tmp_path))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\x00not a model")
    with pytest.raises(ModelError):
        read(tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cut off or no JSON"),
        ("[]", "no schema version"),
        ('{"schema": 2}', "schema version 2: this program reads 1"),
        ('{"schema": 1}', "incomplete: needed content_sha256"),
        ("[" * 100_000, "cut off or no JSON"),
    ],
)
def test_a_broken_record_is_said(model, text, said):
    write_trailer(model, MEASURED, text)
    with pytest.raises(DataError, match=said):
        read(model)


@pytest.mark.parametrize(
    "values", [{"max_length": 0}, {"threads": 0}, {"threads": 10**6}, {"seed": -1}, {"max_length": "many"}]
)
def test_a_record_that_cannot_be_followed_is_refused(model, values):
    write_trailer(model, MEASURED, json.dumps({**asdict(measured(model)), **values}))
    with pytest.raises(DataError, match=MEASURED):
        read(model)


def test_a_record_that_is_no_text_is_refused(model):
    """protobuf hands out bytes where a string is no UTF-8."""
    content, key = model.read_bytes()[: content_end(model, MEASURED)], MEASURED.encode()
    entry = b"\x0a" + bytes([len(key)]) + key + b"\x12\x02\xff\xfe"
    model.write_bytes(content + b"\x72" + bytes([len(entry)]) + entry)
    with pytest.raises(ModelError, match="is not UTF-8 text"):
        read(model)


def test_what_a_message_quotes_of_a_record_is_short_and_printable(model):
    for values in ({"schema": "\x1b[31m" + "x" * 999}, {"\x1b[31m" + "x" * 999: 1}):
        write_trailer(model, MEASURED, json.dumps({**asdict(measured(model)), **values}))
        with pytest.raises(DataError) as caught:
            read(model)
        said = str(caught.value).replace(str(model), "")
        assert said.isprintable()
        assert len(said) < 200


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"source": 1}', "null", "[" * 100_000])
def test_a_broken_provenance_is_said(model, text):
    write_trailer(model, KEY, text)
    with pytest.raises(ModelError, match="cannot be read"):
        read(model)


def test_quantize_and_slim_write_both(tmp_path):
    """Whatever writes a model says what it measured."""
    source = workspace(tmp_path)
    rows = ("--calib", tmp_path / "calib.tsv", "--data", tmp_path / "eval.tsv")
    assert run("quantize", source, *rows, "--method", "minmax", "-o", tmp_path / "q.onnx").code == 0
    assert run("slim", source, "-p", "fuse", "--data", tmp_path / "eval.tsv", "-o", tmp_path / "s.onnx").code == 0
    assert run("slim", source, "-p", "fuse", "-o", tmp_path / "bare.onnx").code == 0
    report = json.loads((tmp_path / "q.json").read_text())
    provenance, found = read(tmp_path / "q.onnx")
    assert asdict(provenance) == report["provenance"]
    assert found.answers.agreement == report["comparison"]["fidelity"]["agreement"]["value"]
    assert found.answers.candidate == report["comparison"]["scores"][0]["candidate"]["value"]
    assert (tmp_path / "q.onnx").stat().st_size == report["output_bytes"]
    assert read(tmp_path / "s.onnx")[1].answers.mean_difference < 1e-5
    assert read(tmp_path / "bare.onnx")[1].answers is None
