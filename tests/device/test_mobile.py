"""Models in ORT format, and the operators that a build of ONNX Runtime must have for them."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from graphs import feeds, fixture, prepared

from onnxslim_bert.cli.mobile import mobile as command
from onnxslim_bert.device import mobile
from onnxslim_bert.device.mobile import same_addresses, write_mobile
from onnxslim_bert.errors import BoundsError, ModelError, OutputError
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.job.trailer import write_trailer
from onnxslim_bert.recipes.provenance import KEY, MEASURED

NAME = "bert-ts17-sdpa"


def assert_same_answers(model):
    """As the fixture gives them, on padded rows."""
    given = feeds(prepared(NAME))
    expected = open_session(fixture(NAME)).run(None, given)
    answers = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, given)
    for answer, value in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, value, atol=1e-5)


def test_the_same_model_gives_the_same_files(tmp_path):
    """And the model's answers, in a folder with nothing else beside it."""
    done = [write_mobile(fixture(NAME), tmp_path / name, "fixed") for name in ("one", "two")]
    assert_same_answers(done[0].model)
    assert done[0].difference < 1e-5
    assert done[0].nbytes == done[0].model.stat().st_size
    assert {path.suffix for path in (tmp_path / "one").iterdir()} == {".ort", ".config"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert done[0].operators.read_bytes() == done[1].operators.read_bytes()
    if same_addresses():
        assert done[0].model.read_bytes() == done[1].model.read_bytes()


def test_the_command_says_what_it_wrote(tmp_path):
    """And which operators a reduced build needs, by domain and opset."""
    output = tmp_path / "phone"
    run = CliRunner().invoke(command, [str(fixture(NAME)), "-o", str(output), "--json"])
    assert run.exit_code == 0, run.output
    document = json.loads(run.output)
    assert_same_answers(document["model"])
    (operators,) = output.glob("*.config")
    assert str(operators) == document["operators"]
    domain, opset, names = operators.read_text().splitlines()[-1].split(";")
    assert (domain, opset, names) == ("ai.onnx", "17", "LayerNormalization")


def test_what_was_measured_of_a_model_is_not_said_of_what_is_made_of_it(tmp_path):
    source = Path(shutil.copy(fixture(NAME), tmp_path / "m.onnx"))
    for key in (KEY, MEASURED):
        write_trailer(source, key, "{}")
    made = write_mobile(source, tmp_path / "phone", "fixed")
    session = ort.InferenceSession(str(made.model), providers=["CPUExecutionProvider"])
    assert {KEY, MEASURED} & session.get_modelmeta().custom_metadata_map.keys() == {KEY}


def test_an_existing_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="exists; give the name of a new folder"):
        write_mobile(fixture(NAME), tmp_path)
    with pytest.raises(OutputError, match="make it first"):
        write_mobile(fixture(NAME), tmp_path / "no" / "phone")


def test_what_cannot_be_opened_within_bounds_is_not_converted(tmp_path, monkeypatch):
    """The converter folds the same constants, and nothing bounds it."""

    def refuse(path):
        raise BoundsError("takes more than 1.1 GB to load")

    monkeypatch.setattr(mobile, "open_session", refuse)
    monkeypatch.setattr(mobile, "_convert", lambda *_: pytest.fail("converted"))
    with pytest.raises(BoundsError):
        write_mobile(fixture(NAME), tmp_path / "phone")
    assert not list(tmp_path.iterdir())


def test_other_answers_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(mobile, "_convert", fake_converter)
    monkeypatch.setattr(mobile, "largest_difference", lambda *paths: 0.5)
    with pytest.raises(ModelError, match=r"answers of the \.ort file differ by 50\.0%, at most 1% was needed"):
        write_mobile(fixture(NAME), tmp_path / "phone")
    assert not list(tmp_path.iterdir())


def test_what_the_converter_made_must_load(tmp_path, monkeypatch):
    monkeypatch.setattr(mobile, "_convert", fake_converter)
    with pytest.raises(ModelError, match=r"tiny\.ort: ONNX Runtime cannot load what it converted, try the other style"):
        write_mobile(fixture(NAME), tmp_path / "phone")
    assert not list(tmp_path.iterdir())


def fake_converter(source, made, style):
    """Writes files that are none."""
    made.mkdir()
    (made / "tiny.ort").write_bytes(b"no model")
    (made / "tiny.config").write_text("# temporary\nai.onnx;13;Cast\n")
