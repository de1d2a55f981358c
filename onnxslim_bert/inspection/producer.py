"""Which program wrote an ONNX file."""

import json
import re
from dataclasses import dataclass

import onnx

from onnxslim_bert.recipes.provenance import KEY

NUMBERED = re.compile(r"[A-Z]\w*_\d+")  # the node names of TorchScript before PyTorch 1.13: MatMul_12
PRODUCERS = {"tf2onnx": "tf2onnx", "keras2onnx": "keras2onnx", "PaddlePaddle": "paddle2onnx"}


@dataclass(frozen=True)
class Producer:
    """Who wrote the file last, and who exported it first.

    name, version: as the file states them, "" when it does not. exporter: "torch.export", "TorchScript", "tf2onnx",
    "keras2onnx", "paddle2onnx", or "" when it leaves no trace. slimmed: what onnxslim-bert noted in a file that it
    wrote (`provenance.Provenance`), else empty.
    """

    name: str
    version: str
    exporter: str
    slimmed: dict[str, str]


def find_producer(proto: onnx.ModelProto) -> Producer:
    """Read the producer off the header; later tools overwrite it there, so the exporter off its way of naming nodes."""
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    return Producer(proto.producer_name, proto.producer_version, _exporter(proto), _slimmed(notes.get(KEY, "")))


def _exporter(proto: onnx.ModelProto) -> str:
    if proto.producer_name in PRODUCERS:
        return PRODUCERS[proto.producer_name]
    names = [node.name for node in proto.graph.node if node.name]
    if any(name.startswith("node_") for name in names):
        return "torch.export"
    if any("StatefulPartitionedCall" in name for name in names):
        return "tf2onnx"
    traced = sum(name.startswith("/") or NUMBERED.fullmatch(name) is not None for name in names)
    return "TorchScript" if proto.producer_name == "pytorch" or traced > len(names) / 2 else ""


def _slimmed(text: str) -> dict[str, str]:
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in notes.items()} if isinstance(notes, dict) else {}
