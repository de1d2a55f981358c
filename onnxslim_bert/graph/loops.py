"""A limit on loops whose number of rounds stands in the file, so that none is begun; `bounds.py` ends the others."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.words import called

MOST_ROUNDS = 10_000
WIDTHS: dict[int, int] = {onnx.TensorProto.INT64: 8, onnx.TensorProto.BOOL: 1}  # bytes of one value


def scalars(graph: onnx.GraphProto) -> dict[str, int]:
    """The single integers and truth values among the constants of `graph`, nodes of the operator Constant included.

    Nothing of the graph need be checked before: what is no whole single value is left out.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.output:
            tensors[node.output[0]] = node.attribute[0].t
    found = {name: _single(tensor) for name, tensor in tensors.items() if list(tensor.dims) in ([], [1])}
    return {name: value for name, value in found.items() if value is not None}


def _single(tensor: onnx.TensorProto) -> int | None:
    if tensor.data_type not in WIDTHS:
        return None
    if len(tensor.raw_data) == WIDTHS[tensor.data_type]:
        return int.from_bytes(tensor.raw_data, "little", signed=True)
    listed = [*tensor.int64_data, *tensor.int32_data]
    return listed[0] if len(listed) == 1 else None


def check_rounds(path: Path | str, node: onnx.NodeProto, known: Mapping[str, int]) -> None:
    """Raise ModelError when the Loop `node` is certain to run more than MOST_ROUNDS rounds.

    known: the scalars of the graphs around it. A loop whose condition is computed may end in any round, so that one
    with a limit of 2**63 - 1, as exporters write `while`, is taken. https://onnx.ai/onnx/operators/onnx__Loop.html
    """
    limit, condition = (*node.input, "", "")[:2]
    if (condition and not known.get(condition)) or (limit and limit not in known):
        return
    body = next((attribute.g for attribute in node.attribute if attribute.name == "body"), onnx.GraphProto())
    if len(body.input) < 2 or not body.output or not _goes_on(body):
        return
    rounds = known[limit] if limit else None
    if rounds is None or rounds > MOST_ROUNDS:
        asked = "without end" if rounds is None else f"for {rounds:,} rounds"
        raise ModelError(f"{path}: {called(node)} runs {asked}; at most {MOST_ROUNDS:,} rounds are read")


def _goes_on(body: onnx.GraphProto) -> bool:
    """Whether the body hands on a condition that never becomes false: the one that it is given, or a true constant."""
    makers = {name: node for node in body.node for name in node.output}
    name = body.output[0].name
    while name in makers and makers[name].op_type == "Identity":
        name = makers.pop(name).input[0]
    return name == body.input[1].name or bool(scalars(body).get(name))
