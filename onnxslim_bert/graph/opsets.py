"""Declare another version of the ONNX operator set (opset), a newer one where every node means the same in it."""

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import subgraph_nodes

# From which opset on the same words mean another thing (https://github.com/onnx/onnx/blob/main/docs/Changelog.md).
CHANGED = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "AveragePool": 19, "GroupNormalization": 21}


def raise_opset(graph: gs.Graph, opset: int) -> str:
    """Let `graph` declare `opset` at least; returns why it cannot, naming the node, or "" where it does."""
    if graph.opset >= opset:
        return ""
    for node in [inner for outer in graph.nodes for inner in (outer, *subgraph_nodes(outer))]:
        if not node.domain and not _means_the_same(node, graph.opset, opset):
            return f"node {node.name!r} ({node.op}) may mean another thing at opset {opset} than at {graph.opset}"
    declare_opset(graph, opset)
    return ""


def declare_opset(graph: gs.Graph, opset: int) -> None:
    """Let `graph` say that its standard operators are of `opset`, whatever its nodes mean there."""
    graph.opset = opset
    for entry in graph.import_domains or ():
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset


def _means_the_same(node: gs.Node, before: int, after: int) -> bool:
    """By ONNX's schemas: the same version, or one that has the node's attributes, their defaults and so many inputs."""
    if before < CHANGED.get(node.op, 0) <= after:
        return False
    try:
        old, new = (onnx.defs.get_schema(node.op, opset) for opset in (before, after))
    except onnx.defs.SchemaError:
        return False
    if old.since_version == new.since_version:
        return True
    unset = [name for name in old.attributes if name not in node.attrs]
    return (
        all(name in new.attributes for name in node.attrs)
        and all(_default(old, name) == _default(new, name) for name in unset)
        and new.min_input <= len(node.inputs) <= new.max_input
    )


def _default(schema: onnx.defs.OpSchema, name: str) -> bytes:
    """Of the attribute `name`; empty where it has none, or where there is no such attribute."""
    attribute = schema.attributes.get(name)
    default: bytes = attribute.default_value.SerializeToString() if attribute is not None else b""
    return default
