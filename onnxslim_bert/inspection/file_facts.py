"""What an ONNX file says of itself, whether or not it holds an encoder."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxslim_bert.graph.files import file_sha256
from onnxslim_bert.graph.probe import MICROSOFT
from onnxslim_bert.graph.signature import fed_inputs
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.inspection.producer import Producer, find_producer
from onnxslim_bert.model.narrow_weights import WORTH

FUSED = frozenset(("LayerNormalization", "Gelu", "Attention", "RMSNormalization"))  # of the ONNX operator set
INTEGER = ("quant", "integer", "qlinear", "qattention", "qembed", "qgemm", "nbits")  # in names, in lower case


@dataclass(frozen=True)
class Port:
    """A graph input or output. axes: sizes, names of sizes that vary, or None where the file does not say."""

    name: str
    dtype: str
    axes: tuple[int | str | None, ...]


@dataclass(frozen=True)
class FileFacts:
    """The file, its header and its graph's surface.

    nbytes: with external data. external: sizes in bytes of the files that hold it, by location, None for a missing one.
    sha256: of the file, None unless asked for. opsets: versions of the domains in use; ONNX's own is "ai.onnx".
    operators: number of nodes by operator, subgraphs included. fused: those that stand for several elementary ones;
    quantized: those that make, take or undo integers, "Cast of int8" among them where weights are stored so.
    """

    path: str
    nbytes: int
    sha256: str | None
    external: dict[str, int | None]
    producer: Producer
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: dict[str, int]
    fused: dict[str, int]
    quantized: dict[str, int]


def read_facts(path: Path, *, sha256: bool = False) -> FileFacts:
    """The facts of the file at `path`; weights stay in the file.

    Raises ModelError when there is no file or it is not ONNX.
    """
    proto, _ = read_skeleton(path)
    external = _external(proto, path.parent)
    nodes = list(_nodes(proto.graph.node))
    operators = _counts(node.op_type for node in nodes)
    contrib = {node.op_type for node in nodes if node.domain == MICROSOFT}
    quantized = {name: count for name, count in operators.items() if any(part in name.lower() for part in INTEGER)}
    integers = _integers(proto.graph)
    if widened := sum(node.op_type == "Cast" and node.input[0] in integers for node in proto.graph.node):
        quantized["Cast of int8"] = widened
    used = {node.domain or "ai.onnx" for node in nodes}
    opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    return FileFacts(
        path=str(path),
        nbytes=path.stat().st_size + sum(size or 0 for size in external.values()),
        sha256=file_sha256(path) if sha256 else None,
        external=external,
        producer=find_producer(proto),
        ir_version=proto.ir_version,
        opsets={name: version for name, version in opsets.items() if name in used},
        inputs=tuple(_port(value) for value in fed_inputs(proto.graph)),
        outputs=tuple(_port(value) for value in proto.graph.output),
        operators=operators,
        fused={name: count for name, count in operators.items() if name in FUSED | contrib and name not in quantized},
        quantized=quantized,
    )


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g.node)


def _integers(graph: onnx.GraphProto) -> set[str]:
    """The names of weights that are stored in eight bits."""
    constants = {node.output[0]: a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute}
    tensors = {tensor.name: tensor for tensor in graph.initializer} | constants
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return {name for name, t in tensors.items() if t.data_type in kinds and math.prod(t.dims) >= WORTH}


def _counts(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _external(proto: onnx.ModelProto, folder: Path) -> dict[str, int | None]:
    locations = [
        entry.value
        for tensor in proto.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    files = {location: folder / location for location in dict.fromkeys(locations)}
    return {location: file.stat().st_size if file.is_file() else None for location, file in files.items()}


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else "unknown"
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    return Port(value.name, dtype, tuple(_axis(axis) for axis in tensor.shape.dim))


def _axis(axis: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
