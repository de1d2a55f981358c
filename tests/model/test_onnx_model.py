"""A model keeps what it was given, takes its weights from inside its folder, and is written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import feeds, fixture, prepared
from onnx import external_data_helper, helper, numpy_helper
from oracles import assert_same_outputs
from renamed_inputs import with_weights

from onnxslim_bert.errors import ModelError, OutputError
from onnxslim_bert.graph import files as output
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.rewriting.contract import Context

ROUND_TRIPS = ("bert-ts13-eager", "albert-dynamo20-sdpa", "bert-features-pooled", "fused-attention", "quantized-qdq")


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_saved_model_is_the_model_that_was_loaded(tmp_path, name):
    model = Model.load(fixture(name))
    model.save(tmp_path / "m.onnx")
    again = Model.load(tmp_path / "m.onnx")
    assert_same_outputs(again, model, [feeds(model)], atol=0, optimize=False)
    assert again.fingerprint() == model.fingerprint()
    assert [(t.name, t.dtype, t.shape) for t in again.graph.inputs] == [
        (t.name, t.dtype, t.shape) for t in model.graph.inputs
    ]


def chosen_rows(weight: onnx.TensorProto) -> onnx.ModelProto:
    """Rows of a table of any type, as float32: three at places 0, 2 and 39."""
    places = numpy_helper.from_array(np.array([0, 2, 39]), "places")
    nodes = [
        helper.make_node("Cast", ["table"], ["wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", ["wide", "places"], ["rows"]),
        helper.make_node("Mul", ["rows", "x"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3, 63]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, places])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4", "UINT16", "DOUBLE"])
def test_constants_of_any_type_are_kept(tmp_path, kind, outside):
    """Also of those that NumPy does not have, in the file and beside it; 40 x 63 of four bits are 1,260 bytes."""
    values = np.arange(40 * 63) % 8
    weight = helper.make_tensor("table", getattr(onnx.TensorProto, kind), (40, 63), values.tolist())
    model = chosen_rows(numpy_helper.from_array(numpy_helper.to_array(weight), "table"))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=outside, location="m.bin", size_threshold=100)
    loaded = Model.load(tmp_path / "m.onnx")
    loaded.save(tmp_path / "made.onnx")
    feeds = {"x": np.ones((3, 63), np.float32)}
    for opened in (str(tmp_path / "made.onnx"), None):
        session = onnxruntime.InferenceSession(opened) if opened else model_session(loaded)
        np.testing.assert_array_equal(session.run(None, feeds)[0], values.reshape(40, 63)[[0, 2, 39]])


def test_constants_that_are_inputs_need_not_stay_so(tmp_path):
    """They had to be before IR version 4; and of two entries of metadata of one name ONNX Runtime takes the last."""
    old = onnx.load(with_weights(fixture("bert-ts13-eager"), tmp_path / "m.onnx"))
    old.metadata_props.extend(onnx.StringStringEntryProto(key="by", value=value) for value in ("one", "another"))
    onnx.save(old, tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    model.save(tmp_path / "made.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "made.onnx")
    assert session.get_modelmeta().custom_metadata_map == {"by": "another"}
    assert_same_outputs(Model.load(fixture("bert-ts13-eager")), model, [feeds(model)], atol=0, optimize=False)


@pytest.mark.parametrize(
    ("name", "values"), [("value_floats", [0.1, 2.0]), ("value_float", 0.1), ("value_ints", [1, 2])]
)
def test_numbers_of_constants_keep_their_type(tmp_path, name, values):
    """32 bits for floats, which Python's own have not."""
    kind = onnx.TensorProto.INT64 if "int" in name else onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(end, kind, [None]) for end in "xy"]
    nodes = [helper.make_node("Constant", [], ["c"], **{name: values}), helper.make_node("Add", ["x", "c"], ["y"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), ir_version=8), tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    Canonicalize().apply(model, Context())
    (found,) = model.constants().values()
    assert found.values.dtype == (np.int64 if "int" in name else np.float32)


def test_the_long_name_of_onnx_s_domain_is_the_short_one(tmp_path):
    model = onnx.load(fixture("bert-ts13-eager"))
    for node in model.graph.node:
        node.domain = "ai.onnx"
    onnx.save(model, tmp_path / "m.onnx")
    loaded = Model.load(tmp_path / "m.onnx")
    assert_same_outputs(loaded, Model.load(fixture("bert-ts13-eager")), [feeds(loaded)], atol=0, optimize=False)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        Model.load(fixture("roberta-ts17-sdpa")).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_header_survives(tmp_path):
    """metadata_props, version and doc string, which graphsurgeon drops, and the opsets and IR version."""
    proto = onnx.load(fixture("bert-ts17-eager"))
    proto.doc_string, proto.model_version = "what it is", 5
    helper.set_model_props(proto, {"author": "someone", "task": "reviews"})
    onnx.save(proto, tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    Canonicalize().apply(model, None)
    model.clone().save(tmp_path / "saved.onnx")
    saved = onnx.load(tmp_path / "saved.onnx")
    assert (saved.doc_string, saved.model_version, saved.ir_version) == ("what it is", 5, proto.ir_version)
    assert {p.key: p.value for p in saved.metadata_props} == {"author": "someone", "task": "reviews"}
    assert list(saved.opset_import) == list(proto.opset_import)


def test_what_a_file_says_again_of_an_output_hides_nothing():
    """Files that ONNX Runtime made float16 list the output among inner tensors, too, there without a shape."""
    proto = onnx.load(fixture("bert-features"))
    (output,) = proto.graph.output
    proto.graph.value_info.add().CopyFrom(onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, None))
    onnx.checker.check_model(proto)
    written = Model.from_proto(proto).proto()
    onnx.checker.check_model(written)
    assert written.graph.output[0].type == output.type


def test_a_weight_that_changes_changes_the_fingerprint():
    model = prepared("bert-ts17-eager", Canonicalize())
    name = model.encoder.layers[2].down.weight
    before, weight = model.fingerprint(), model.array(name)
    model.replace(name, weight + 0)
    assert model.fingerprint() == before
    model.replace(name, weight + np.eye(*weight.shape, dtype=np.float32) * 1e-6)
    assert model.fingerprint() != before


def test_arrays_are_read_only_and_clones_apart():
    """A copy shares its arrays, so nobody may write into them; what is replaced in one stays in the other."""
    model = prepared("bert-ts17-eager", Canonicalize())
    copy, name = model.clone(), model.encoder.layers[0].query.weight
    before = model.array(name).copy()
    with pytest.raises(ValueError, match="read-only"):
        copy.array(name)[0, 0] = 1
    copy.replace(name, before * 2)
    np.testing.assert_array_equal(model.array(name), before)
    np.testing.assert_array_equal(copy.array(name), before * 2)


def test_model_local_functions_are_inlined(tmp_path):
    """torch.export may write a layer as a function of the model; passes see its nodes."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[N, 3] x) => (float[N, 3] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["" : 17]>
        twice (a) => (b) { b = Add(a, a) }
    """)
    onnx.save(model, tmp_path / "m.onnx")
    assert [node.op for node in Model.load(tmp_path / "m.onnx").graph.nodes] == ["Add"]


# weights that are missing, elsewhere or wrong


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A fixture whose large weights lie in folder/weights.bin."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "m.onnx"
    onnx.save_model(
        onnx.load(fixture("bert-ts17-eager")),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=500,
    )
    return path


def relocate(path: Path, **entries: str) -> None:
    """Rewrite these external data entries of every tensor of the file."""
    model = onnx.load(path, load_external_data=False)
    for tensor in external_data_helper._get_all_tensors(model):
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_external_data_beside_the_model_is_read(external):
    inside = Model.load(fixture("bert-ts17-eager"))
    assert_same_outputs(Model.load(external), inside, [feeds(inside)], atol=0, optimize=False)


def test_a_saved_model_holds_its_external_data(external, tmp_path):
    """One file again, which needs no other."""
    Model.load(external).save(tmp_path / "whole.onnx")
    (external.parent / "weights.bin").unlink()
    whole, inside = Model.load(tmp_path / "whole.onnx"), Model.load(fixture("bert-ts17-eager"))
    assert_same_outputs(whole, inside, [feeds(inside)], atol=0, optimize=False)


def test_external_data_may_lie_in_a_folder_below(external):
    (external.parent / "data").mkdir()
    (external.parent / "weights.bin").rename(external.parent / "data" / "w.bin")
    relocate(external, location="data/w.bin")
    assert Model.load(external).encoder.layers


def test_missing_external_data_is_refused(external):
    (external.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"is missing: no file 'weights\.bin' beside the model"):
        Model.load(external)


@pytest.mark.parametrize("kind", ["absolute", "above", "empty", "link", "linked folder"])
def test_external_data_outside_the_folder_is_refused(external, tmp_path, kind):
    """Whatever way the path takes out: a model is not to read files that its folder does not hold."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (external.parent / "weights.bin").rename(elsewhere / "weights.bin")
    (external.parent / "link.bin").symlink_to(elsewhere / "weights.bin")
    (external.parent / "linked").symlink_to(elsewhere)
    location = {
        "absolute": str(elsewhere / "weights.bin"),
        "above": "../elsewhere/weights.bin",
        "empty": "",
        "link": "link.bin",
        "linked folder": "linked/weights.bin",
    }[kind]
    relocate(external, location=location)
    with pytest.raises(ModelError, match="outside the model's folder"):
        Model.load(external)


@pytest.mark.parametrize("place", ["blobs", "elsewhere"])
def test_external_data_may_lie_where_the_models_own_link_leads(external, tmp_path, place):
    """As in the cache of the Hugging Face hub; in any other folder they are outside, and so they are of a copy."""
    for folder in ("blobs", "elsewhere", "snapshot"):
        (tmp_path / folder).mkdir()
    before = Model.load(external)
    external.rename(tmp_path / "blobs" / "1a")
    (external.parent / "weights.bin").rename(tmp_path / place / "2b")
    (tmp_path / "snapshot" / "weights.bin").symlink_to(tmp_path / place / "2b")
    linked, copied = (tmp_path / "snapshot" / name for name in ("model.onnx", "copy.onnx"))
    linked.symlink_to("../blobs/1a")
    copied.write_bytes(linked.read_bytes())
    for path in [copied] if place == "blobs" else [copied, linked]:
        with pytest.raises(ModelError, match="outside the model's folder"):
            Model.load(path)
    if place == "blobs":
        assert Model.load(linked).fingerprint() == before.fingerprint()


@pytest.mark.parametrize(
    "entries", [{"length": "7"}, {"offset": "-4"}, {"offset": "999999999"}, {"offset": "x"}, {"length": "-1"}], ids=str
)
def test_external_data_that_does_not_fit_is_refused(external, entries):
    relocate(external, **entries)
    with pytest.raises(ModelError, match=r"does not fit 'weights\.bin'"):
        Model.load(external)


def test_truncated_external_data_is_refused(external):
    data = external.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-9])
    with pytest.raises(ModelError, match="does not fit"):
        Model.load(external)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["table", "bias", "external"])
def test_weights_that_are_not_finite_are_refused(tmp_path, kind, value):
    """Large or small, in the file or beside it: named, with what to do."""
    model = onnx.load(fixture("bert-ts17-eager"))
    place = "bert.embeddings.LayerNorm.bias" if kind == "bias" else "bert.embeddings.word_embeddings.weight"
    tensor = next(t for t in model.graph.initializer if t.name == place)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[3] = value
    tensor.CopyFrom(numpy_helper.from_array(values, place))
    path, outside = tmp_path / "m.onnx", kind == "external"
    onnx.save_model(model, path, save_as_external_data=outside, location="w", size_threshold=9)
    with pytest.raises(ModelError, match=f"weight '{place}' holds NaN or infinite values"):
        Model.load(path)


def test_an_infinite_scalar_is_no_weight(tmp_path):
    """Masks are made of -inf: that is no damage."""
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        main (bool[N] hidden, float[N] x) => (float[N] y) <float low = {-inf}> { y = Where(hidden, low, x) }
    """)
    onnx.save(model, tmp_path / "m.onnx")
    assert Model.load(tmp_path / "m.onnx").array("low") == -np.inf


@pytest.mark.parametrize("seed", range(2))
def test_damaged_bytes_raise_nothing_but_model_errors(tmp_path, seed):
    """Whichever bytes are wrong, a file is loaded or refused, never a traceback."""
    data, rng, path = fixture("bert-dynamo18-eager").read_bytes(), np.random.default_rng(seed), tmp_path / "m.onnx"
    refused = 0
    for _ in range(100):
        wrong = np.frombuffer(data, np.uint8).copy()
        wrong[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        path.write_bytes(wrong)
        try:
            Model.load(path)
        except ModelError:
            refused += 1
    assert refused


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.onnx: no such file"):
        Model.load(tmp_path / "gone.onnx")


# writing


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    target = tmp_path / "m.onnx"
    target.write_text("precious")
    model = Model.load(fixture("bert-ts17-eager"))
    with pytest.raises(OutputError, match="exists"):
        model.save(target)
    assert target.read_text() == "precious"
    model.save(target, overwrite=True)
    assert Model.load(target).fingerprint() == model.fingerprint()


def test_a_model_can_replace_its_own_file(tmp_path):
    """Its weights are mapped from the file that is replaced."""
    path = tmp_path / "m.onnx"
    path.write_bytes(fixture("bert-ts17-eager").read_bytes())
    model = Model.load(path)
    before = model.fingerprint()
    model.save(path, overwrite=True)
    assert model.fingerprint() == Model.load(path).fingerprint() == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "^C"])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch, step, error):
    """No partial file, no temporary one, and the file that was there untouched."""

    def fail(*_: object) -> None:
        raise error

    target = tmp_path / "m.onnx"
    target.write_text("precious")
    monkeypatch.setattr(output.os, step, fail)
    with pytest.raises((OutputError, KeyboardInterrupt)) as caught:
        Model.load(fixture("bert-ts17-eager")).save(target, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_text() == "precious"
    if caught.type is OutputError:
        assert "No space left on device" in str(caught.value)


@pytest.mark.parametrize("folder", ["gone", "file"])
def test_a_path_that_cannot_be_written_is_refused(tmp_path, folder):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"m\.onnx: cannot be written"):
        Model.load(fixture("bert-ts17-eager")).save(tmp_path / folder / "m.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        Model.load(fixture("bert-ts17-eager")).save(tmp_path / "m.onnx")


def test_a_new_file_has_the_user_s_permissions(tmp_path):
    """Not those of a temporary file, which only its owner reads."""
    mask = os.umask(0o027)
    try:
        Model.load(fixture("bert-ts17-eager")).save(tmp_path / "m.onnx")
    finally:
        os.umask(mask)
    assert (tmp_path / "m.onnx").stat().st_mode & 0o777 == 0o640


def test_an_invalid_graph_is_not_written(tmp_path):
    model = Model.load(fixture("bert-ts17-eager"))
    model.graph.nodes[0].op = "NoSuchOperator"
    with pytest.raises(ModelError, match="the rewritten graph is not valid ONNX"):
        model.save(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_domain_and_doc_strings_survive(tmp_path):
    """Of the model, its inputs and its outputs, through a copy and the file."""
    proto = onnx.load(fixture("bert-ts17-sdpa"))
    proto.domain, proto.doc_string = "org.example", "what it is"
    proto.graph.input[0].doc_string, proto.graph.output[0].doc_string = "the ids", "the answer"
    onnx.save(proto, tmp_path / "m.onnx")
    Model.load(tmp_path / "m.onnx").clone().save(tmp_path / "n.onnx")
    written = onnx.load(tmp_path / "n.onnx")
    assert (written.domain, written.doc_string) == ("org.example", "what it is")
    assert (written.graph.input[0].doc_string, written.graph.output[0].doc_string) == ("the ids", "the answer")
    assert len(written.graph.input) == len(proto.graph.input)


def test_an_empty_domain_is_not_written(tmp_path):
    """So that a model without one keeps its bytes."""
    proto = onnx.load(fixture("bert-ts17-sdpa"))
    proto.ClearField("domain")
    onnx.save(proto, tmp_path / "m.onnx")
    Model.load(tmp_path / "m.onnx").save(tmp_path / "n.onnx")
    assert not onnx.load(tmp_path / "n.onnx").HasField("domain")
