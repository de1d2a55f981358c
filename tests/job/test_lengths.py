"""Length buckets: the same models from fewer bytes, all of them or none, and the right one for a text."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from graphs import SOME, feeds, prepared
from oracles import answers

from onnxslim_bert.errors import ModelError, OutputError
from onnxslim_bert.graph.sessions import open_session
from onnxslim_bert.job.lengths import check_place, renew_manifest, write_buckets
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_weights import QuantizeWeights

LENGTHS = (5, 9, 13)
FORM = (Canonicalize(), Fuse(style="standard"))


def models(name="bert-ts17-eager", *steps, lengths=LENGTHS):
    """The fixture with its shapes fixed to each length."""
    return [(n, prepared(name, *FORM, FixShapes(batch=1, seq=n), *steps)) for n in lengths]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("steps", [(), (QuantizeWeights(),)], ids=["float", "int8"])
@pytest.mark.parametrize("name", SOME)
def test_every_bucket_answers_as_its_model(tmp_path, name, steps):
    """Bit for bit, from the files, read by ONNX Runtime and by this project."""
    made = models(name, *steps)
    buckets = write_buckets(tmp_path / "out", made)
    for length, model in made:
        file = tmp_path / "out" / buckets.lengths[length]
        given = feeds(model, 1, length, "holes")
        (expected,) = answers(model, [given])
        session = open_session(file)
        for values, ours in zip(expected.values(), session.run(None, given), strict=True):
            np.testing.assert_array_equal(ours, values)
        assert Model.load(file).fingerprint() == model.fingerprint()


def test_weights_are_stored_once(tmp_path):
    """Three buckets take little more than one, and no weight lies in a graph file."""
    buckets = write_buckets(tmp_path / "out", models())
    write_buckets(tmp_path / "one", models(lengths=(9,)))
    data, alone = (tmp_path / folder / "model.data" for folder in ("out", "one"))
    assert data.stat().st_size < 1.2 * alone.stat().st_size
    for file in buckets.lengths.values():
        graph = onnx.load(tmp_path / "out" / file, load_external_data=False).graph
        assert max(len(tensor.raw_data) for tensor in graph.initializer) < 1024
        named = [{e.key: e.value for e in t.external_data} for t in graph.initializer if t.external_data]
        assert {entry["location"] for entry in named} == {"model.data"}
        assert all(int(e["offset"]) % (4096 if int(e["length"]) >= 4096 else 64) == 0 for e in named)


def test_the_manifest_tells_all(tmp_path):
    """Lengths, files and their hashes."""
    write_buckets(tmp_path / "out", reversed(models()))
    held = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert held["schema"] == 1
    assert list(held["lengths"]) == ["5", "9", "13"]
    files = contents(tmp_path / "out")
    assert {n: hashlib.sha256(b).hexdigest() for n, b in files.items() if n != "manifest.json"} == held["files"]


def test_the_same_models_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        write_buckets(tmp_path / folder, models())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_nothing_is_overwritten_unasked(tmp_path):
    write_buckets(tmp_path / "out", models(lengths=(7,)))
    with pytest.raises(OutputError, match="out exists; give another output or --force"):
        check_place(tmp_path / "out", overwrite=False)
    check_place(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    ("extra", "message"),
    [("notes.txt", "holds 'notes.txt' besides length buckets"), (None, "is no folder of length buckets")],
)
def test_a_folder_of_other_things_is_never_replaced(tmp_path, extra, message):
    """Not even when asked to overwrite."""
    if extra:
        write_buckets(tmp_path / "out", models(lengths=(7,)))
        (tmp_path / "out" / extra).write_text("mine")
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "model.onnx").write_text("mine")
    with pytest.raises(OutputError, match=message):
        check_place(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (list, OutputError, "no lengths were given"),
        (lambda: models(lengths=(5, 5)), OutputError, "length 5 is given twice"),
        (
            lambda: [(9, models(lengths=(5,))[0][1])],
            ModelError,
            "the model for 9 tokens takes 5 tokens; fix its shapes",
        ),
        (lambda: [(9, prepared("bert-ts17-eager", *FORM))], ModelError, "the model for 9 tokens takes any length"),
    ],
    ids=["none", "twice", "other", "open"],
)
def test_models_of_other_lengths_are_refused(tmp_path, given, error, message):
    with pytest.raises(error, match=message):
        write_buckets(tmp_path / "out", given())


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(OutputError, match="make it first"):
        check_place(tmp_path / "no" / "out", overwrite=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "not a manifest of length buckets"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not a manifest of length buckets"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 2}'), "schema 2, and this version reads 1"),
    ],
    ids=["no manifest", "garbage", "newer"],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, damage, message):
    write_buckets(tmp_path / "out", models())
    damage(tmp_path / "out")
    with pytest.raises(ModelError, match=message):
        renew_manifest(tmp_path / "out")
