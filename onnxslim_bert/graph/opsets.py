"""Declare another version of the ONNX operator set (opset), a newer one where every node means the same in it."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import subgraph_nodes

# From which opset on the same words mean another thing (https://github.com/onnx/onnx/blob/main/docs/Changelog.md).
CHANGED = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "AveragePool": 19, "GroupNormalization": 21}


def raise_opset(graph: gs.Graph, opset: int) -> str:
    """Let `graph` declare `opset` at least; returns why it cannot, naming the node, or "" where it does.

    Axes that were an attribute and are an input there (Reduce operators, Squeeze, Unsqueeze) become one.
    """
    if graph.opset >= opset:
        return ""
    nodes = [inner for outer in graph.nodes for inner in (outer, *subgraph_nodes(outer)) if not inner.domain]
    for node in nodes:
        if not _means_the_same(node, graph.opset, opset):
            return f"node {node.name!r} ({node.op}) may mean another thing at opset {opset} than at {graph.opset}"
    build = Builder(graph, "opset")
    for node in nodes:
        if _gives_axes(node, onnx.defs.get_schema(node.op, opset)):
            axes = np.asarray(node.attrs.pop("axes"), np.int64)
            node.inputs.append(gs.Constant(build.unique("axes"), axes))  # of its own: branches hold their constants
    declare_opset(graph, opset)
    return ""


def declare_opset(graph: gs.Graph, opset: int) -> None:
    """Let `graph` say that its standard operators are of `opset`, whatever its nodes mean there."""
    graph.opset = opset
    for entry in graph.import_domains or ():
        if entry.domain in ("", "ai.onnx"):
            entry.version = opset


def _means_the_same(node: gs.Node, before: int, after: int) -> bool:
    """By ONNX's schemas: the same version, or one that has the node's attributes, their defaults and so many inputs.

    Axes may be an input where they were an attribute.
    """
    if before < CHANGED.get(node.op, 0) <= after:
        return False
    try:
        old, new = (onnx.defs.get_schema(node.op, opset) for opset in (before, after))
    except onnx.defs.SchemaError:
        return False
    if old.since_version == new.since_version:
        return True
    unset = [name for name in old.attributes if name not in node.attrs]
    moved = ("axes",) if _gives_axes(node, new) else ()
    return (
        all(name in new.attributes or name in moved for name in node.attrs)
        and all(_default(old, name) == _default(new, name) for name in unset)
        and new.min_input <= len(node.inputs) + len(moved) <= new.max_input
    )


def _gives_axes(node: gs.Node, schema: onnx.defs.OpSchema) -> bool:
    """Whether `node` has as an attribute the axes that `schema` takes as its second input."""
    second = schema.inputs[1].name if len(schema.inputs) > 1 else ""
    return "axes" in node.attrs and "axes" not in schema.attributes and second == "axes" and len(node.inputs) == 1


def _default(schema: onnx.defs.OpSchema, name: str) -> bytes:
    """Of the attribute `name`; empty where it has none, or where there is no such attribute."""
    attribute = schema.attributes.get(name)
    default: bytes = attribute.default_value.SerializeToString() if attribute is not None else b""
    return default
