"""Files that list their weights among the inputs, as IR versions below 4 must: no command takes a weight for rows."""

import json
from itertools import pairwise

import numpy as np
import onnx
import pytest
from command_line import run, workspace
from onnx import helper, numpy_helper
from renamed_inputs import with_weights

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.signature import declared_axes, fed_inputs
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.proof.output_axes import reads_parts, seen_outputs

NAME = "bert-ts13-eager"
FED = ["input_ids", "attention_mask", "token_type_ids"]


def test_every_command_feeds_what_is_no_weight(tmp_path):
    """And says of the file what it says of the same without weights among its inputs."""
    new = workspace(tmp_path, NAME)
    old, made = with_weights(new, tmp_path / "old.onnx"), tmp_path / "made.onnx"
    rows = ("--data", tmp_path / "eval.tsv")
    facts = json.loads(run("inspect", old, "--json").out)
    assert [port["name"] for port in facts["file"]["inputs"]] == FED
    result = run("validate", new, old, *rows, "--min-agreement", "100", "--json")
    assert result.code == 0, result.err
    assert run("bench", old, "--seq", "8", "--rounds", "2").code == 0
    assert run("explain", old, "--target", "nnapi", "--seq", "8").code == 0
    result = run("quantize", old, "--mode", "dynamic", *rows, "-o", made)
    assert result.code == 0, result.err
    assert [value.name for value in onnx.load(made).graph.input] == FED


@pytest.mark.parametrize("version", [3, 8])
def test_a_table_larger_than_any_batch_is_no_batch(tmp_path, version):
    """A word table has more elements than tokens may be fixed. Callers may overwrite weights from version 4 on."""
    model = workspace(tmp_path, NAME)
    proto = onnx.load(model)
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1 << 12, 1 << 7), np.int8), "table"))
    onnx.save(proto, model)
    graph = read_skeleton(with_weights(model, model, version))[0].graph
    assert [value.name for value in fed_inputs(graph)] == FED
    assert declared_axes(graph) == (None, None)


def test_what_outputs_are_is_not_seen_in_weights():
    """Neither whether the length is fixed nor whether an image is read follows from them."""
    image = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["b", 3, 8, 8])
    places = numpy_helper.from_array(np.zeros((1, 5), np.int64), "places")
    listed = helper.make_tensor_value_info("places", onnx.TensorProto.INT64, [1, 5])
    graph = onnx.GraphProto(input=[listed, image], initializer=[places])
    assert reads_parts(graph)
    answers = {name: np.zeros((2, 5), np.float32) for name in ("one", "other")}
    text = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["b", "s"])
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", 5]) for name in answers]
    old, new = (
        onnx.GraphProto(input=inputs, initializer=[places], output=outputs) for inputs in ([listed, text], [text])
    )
    assert seen_outputs(old, answers, 5) == seen_outputs(new, answers, 5)


def test_constants_that_unfold_are_bounded_there_too(tmp_path):
    """ONNX Runtime folds them whether or not their names are inputs."""
    model = workspace(tmp_path, NAME)
    proto = onnx.load(model)
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1 << 10, np.float32), "one"))
    names = ["one", *(f"c{place}" for place in range(20))]
    proto.graph.node.extend(helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names))
    onnx.save(proto, model)
    with pytest.raises(ModelError, match="makes constants of"):
        read_skeleton(with_weights(model, model))
