"""Outputs that are no answers to rows: a weight, an input, one number for the whole batch. They change nothing."""

import onnx
import pytest
from command_line import run, workspace
from onnx import helper


def a_weight(graph: onnx.GraphProto) -> None:
    tensor = graph.initializer[0]
    graph.output.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def an_input(graph: onnx.GraphProto) -> None:
    graph.output.append(graph.input[0])


def one_number(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("ReduceMax", [graph.output[0].name], ["top"], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("top", 1, []))


def a_count(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Size", [graph.output[0].name], ["count"]))
    graph.output.insert(0, helper.make_tensor_value_info("count", 7, []))


@pytest.mark.parametrize("add", [a_weight, an_input, one_number, a_count])
@pytest.mark.parametrize(
    "command",
    [
        "slim {} -p canonicalize?,prune-heads?,prune-ffn? --calib calib.tsv --data eval.tsv -o made.onnx",
        "quantize {} --mode dynamic --data eval.tsv -o made.onnx",
        "bench {} --seq 4 --rounds 2",
    ],
)
def test_every_verb_takes_them(tmp_path, monkeypatch, add, command):
    path = workspace(tmp_path)
    model = onnx.load(path)
    add(model.graph)
    onnx.save(model, path)
    monkeypatch.chdir(tmp_path)
    ended = run(*command.format(path.name).split())
    assert ended.code == 0, ended.err
    if "made.onnx" in command:
        names = [value.name for value in onnx.load(tmp_path / "made.onnx").graph.output]
        assert names == [value.name for value in model.graph.output]
