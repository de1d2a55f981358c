"""Reading a file without copying its weights, and refusing what is no complete file."""

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import fixture
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.wire import STAYS_IN_FILE, read_skeleton, release, serialized
from onnxslim_bert.model.onnx_model import Model


def one_table(values: np.ndarray, path: Path) -> onnx.ModelProto:
    """A model that looks rows up in `values`, and small constants beside it."""
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])]
    outputs = [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["rows", "width"])]
    constants = [numpy_helper.from_array(np.arange(3.0), "small"), numpy_helper.from_array(values, "table")]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["found"])]
    model = helper.make_model(helper.make_graph(nodes, "lookup", inputs, outputs, constants), doc_string="kept")
    onnx.save(model, path)
    return model


@pytest.mark.parametrize("name", ["bert-ts13-eager", "albert-dynamo20-sdpa", "quantized-qdq"])
def test_skeleton_and_weights_are_the_whole_file(name):
    """Put together they are what protobuf reads; only large weights stay outside."""
    whole = onnx.load(fixture(name))
    skeleton, weights = read_skeleton(fixture(name))
    assert weights
    for tensor, kept in zip(whole.graph.initializer, skeleton.graph.initializer, strict=True):
        if tensor.name in weights:
            assert len(tensor.raw_data) >= STAYS_IN_FILE
            assert not kept.raw_data
            np.testing.assert_array_equal(weights[tensor.name], numpy_helper.to_array(tensor))
            kept.raw_data = tensor.raw_data
    assert skeleton == whole


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int64", "float64"])
def test_weights_are_views_of_the_file(tmp_path, dtype):
    """Mapped with their type and shape, and nobody can write to them."""
    values = np.arange(1300).reshape(13, 100).astype(dtype)
    one_table(values, tmp_path / "m.onnx")
    _, weights = read_skeleton(tmp_path / "m.onnx")
    assert list(weights) == ["table"]
    np.testing.assert_array_equal(weights["table"], values)
    assert weights["table"].dtype == dtype
    assert not weights["table"].flags.writeable


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path):
    """The graph comes near the end: a cut in or before it is refused, one after it loses no weight."""
    whole, path = one_table(np.ones((7, 300), np.float32), tmp_path / "m.onnx"), tmp_path / "cut.onnx"
    data = whole.SerializeToString()
    end_of_graph = data.rindex(whole.graph.SerializeToString()) + whole.graph.ByteSize()
    for length in {*range(250), *range(0, len(data), 97), *range(end_of_graph - 50, len(data))}:
        path.write_bytes(data[:length])
        try:
            skeleton, weights = read_skeleton(path)
        except ModelError:
            continue
        assert length >= end_of_graph
        assert (skeleton.graph.node, weights["table"].shape) == (whole.graph.node, (7, 300))


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(tmp_path, seed):
    path = tmp_path / "noise.onnx"
    for length in (1, 2, 7, 300, 5000):
        path.write_bytes(np.random.default_rng([seed, length]).bytes(length))
        with pytest.raises(ModelError, match=r"noise\.onnx: not "):
            read_skeleton(path)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_raise_nothing_but_model_errors(tmp_path, seed):
    """Whichever byte of the structure is wrong, the file is read or refused, never a traceback."""
    model = one_table(np.ones((5, 53), np.float32), tmp_path / "m.onnx")
    data, rng, path = model.SerializeToString(), np.random.default_rng(seed), tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(300):
        wrong = bytearray(data)
        wrong[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(wrong)
        try:
            read_skeleton(path)
        except ModelError:
            refused += 1
    assert refused


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"empty\.onnx: the file is empty"):
        read_skeleton(tmp_path / "empty.onnx")


def test_a_folder_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(ModelError, match="a folder; an ONNX model was needed"):
        read_skeleton(tmp_path)
    with pytest.raises(ModelError, match=r"gone\.onnx: no such file"):
        read_skeleton(tmp_path / "gone.onnx")


def test_released_weights_are_read_again(tmp_path):
    """Their memory goes, their values stay in the file; arrays of one's own are left alone."""
    values = np.arange(1300, dtype=np.float32).reshape(13, 100)
    one_table(values, tmp_path / "m.onnx")
    _, weights = read_skeleton(tmp_path / "m.onnx")
    own = values.copy()
    release([*weights.values(), own])
    np.testing.assert_array_equal(weights["table"], values)
    np.testing.assert_array_equal(own, values)


def test_a_model_without_nodes_is_refused(tmp_path):
    onnx.save(helper.make_model(helper.make_graph([], "none", [], [])), tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="without nodes"):
        read_skeleton(tmp_path / "none.onnx")


def test_data_that_does_not_fill_its_shape_is_refused(tmp_path):
    """Named, with the bytes found and the bytes needed."""
    model = one_table(np.ones((5, 60), np.float32), tmp_path / "m.onnx")
    model.graph.initializer[1].dims[0] = 7
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'table' holds 1200 bytes where shape \[7, 60\] of float32 needs 1680"):
        read_skeleton(tmp_path / "m.onnx")


def test_what_is_written_piece_by_piece_is_what_protobuf_writes():
    """Any parser reads the same model from it: all data, in a graph of the same nodes."""
    model = Model.load(fixture("bert-ts17-sdpa"))
    skeleton, weights = model.skeleton()
    assert weights
    written = onnx.ModelProto.FromString(b"".join(serialized(skeleton, weights)))
    expected = model.proto()
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert set(held) == {tensor.name for tensor in expected.graph.initializer}
    for tensor in expected.graph.initializer:
        np.testing.assert_array_equal(held[tensor.name], onnx.numpy_helper.to_array(tensor))
    for proto in (written, expected):
        del proto.graph.initializer[:]
    assert written == expected


def test_a_file_is_read_again_once_it_changed(tmp_path):
    """A skeleton is kept by the state of its file: what is done to it, or to the file, is not seen in the other."""
    path = tmp_path / "m.onnx"
    for name in ("first", "second"):
        model = onnx.load(fixture("bert-ts17-sdpa"))
        model.producer_name = name
        onnx.save(model, path)
        long_ago = path.stat().st_mtime_ns - 10**9 * (1 if name == "first" else 2)
        os.utime(path, ns=(long_ago, long_ago))
        for _ in range(2):
            skeleton, weights = read_skeleton(path)
            assert (skeleton.producer_name, bool(weights)) == (name, True)
            skeleton.producer_name = "changed"


def test_a_file_as_new_as_the_clock_ticks_is_read_again(tmp_path):
    """Two contents of one size may get one time within a tick; here one that has not come yet."""
    path, soon = tmp_path / "m.onnx", time.time_ns() + 10**12
    model = onnx.load(fixture("bert-ts17-sdpa"))
    for model.producer_name in ("one", "two"):
        path.write_bytes(model.SerializeToString())
        os.utime(path, ns=(soon, soon))
        assert read_skeleton(path)[0].producer_name == model.producer_name
