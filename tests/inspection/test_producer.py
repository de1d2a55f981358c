"""The program that wrote a file is told by its header and by how nodes are named."""

import onnx
import pytest
from graphs import EVERY, fixture
from onnx import helper

from onnxslim_bert.inspection.file_facts import read_facts
from onnxslim_bert.inspection.producer import find_producer
from onnxslim_bert.model.onnx_model import Model

SPELLINGS = {
    "torch.export": ("pytorch", ["node_MatMul_1"]),
    "TorchScript": ("pytorch", ["MatMul_1", "/bert/Add"]),
    "tf2onnx": ("tf2onnx", ["StatefulPartitionedCall/model/bert"]),
    "keras2onnx": ("keras2onnx", ["dense"]),
    "": ("", ["dense", "layernorm"]),
}


@pytest.mark.parametrize("exporter", SPELLINGS)
def test_the_exporter_is_told_by_header_and_names(exporter):
    producer, names = SPELLINGS[exporter]
    assert find_producer(proto_of(producer, names)).exporter == exporter


@pytest.mark.parametrize("exporter", ["torch.export", "TorchScript", "tf2onnx"])
def test_a_tool_that_came_later_does_not_hide_the_exporter(exporter):
    """It leaves most nodes their names."""
    found = find_producer(proto_of("onnx.quantize", SPELLINGS[exporter][1]))
    assert (found.name, found.exporter) == ("onnx.quantize", exporter)


def proto_of(producer: str, names: list[str]) -> onnx.ModelProto:
    """A header over nodes with these names."""
    nodes = [helper.make_node("Identity", ["x"], ["y"], name) for name in names]
    return helper.make_model(helper.make_graph(nodes, "g", [], []), producer_name=producer)


@pytest.mark.parametrize("name", EVERY)
def test_fixtures_know_their_exporter(name):
    expected = "TorchScript" if "-ts" in name else "torch.export"
    assert read_facts(fixture(name)).producer.exporter == expected


def test_notes_that_are_no_json_are_nothing(tmp_path):
    model = Model.load(fixture("bert-ts17-eager"))
    model.header.metadata_props.add(key="onnxslim_bert.provenance", value="{")
    model.save(tmp_path / "m.onnx")
    assert read_facts(tmp_path / "m.onnx").producer.slimmed == {}
