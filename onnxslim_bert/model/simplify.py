"""Canonical simplification: the same outputs with fewer constants and nodes."""

import hashlib

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.bounds import A_NODE, load_within
from onnxslim_bert.graph.edit import is_output, redirect, sort_nodes
from onnxslim_bert.graph.probe import attribute_text, constant, opsets_of, producer, run, subgraph_nodes
from onnxslim_bert.model.element_types import element_type
from onnxslim_bert.model.linear import is_linear
from onnxslim_bert.model.narrow_weights import integers_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import has_fixed_shape

START = 64  # values by which constants are told apart first
RESHAPING = ("Reshape", "Expand", "Slice", "Tile")  # the identity where they leave the shape as it is

NO_EFFECT = ("Identity", "Dropout")
OF_MANY = ("Concat", "Sum", "Max", "Min", "Mean")  # the identity of one tensor
UNBOUNDED = ("Loop", "Scan")  # may run for ever, and nothing ends what graphsurgeon runs
UNFOLDED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")  # what holds int8 weights stays
NOT_REPEATABLE = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


def fold(model: Model) -> None:
    """Compute everything that does not depend on an input's values."""
    fold_shapes(model.graph)
    _fold_constants(model)
    if _fold_quantized(model.graph):
        _fold_constants(model)
    model.changed()


def _fold_constants(model: Model) -> None:
    if any(map(_may_fold, model.graph.nodes)):  # else the copy of the graph that folding makes is for nothing
        nbytes = sum(constant.values.nbytes for constant in model.constants().values())
        with load_within(nbytes, len(model.graph.nodes) * A_NODE):
            model.graph.fold_constants(fold_shapes=False, size_threshold=None, should_exclude_node=_may_not_end)


def _fold_quantized(graph: gs.Graph) -> int:
    """Store what QuantizeLinear makes of constants, as of weights in fewer bits: graphsurgeon leaves it. How many."""
    found = [node for node in graph.nodes if node.op == "QuantizeLinear"]
    found = [node for node in found if all(isinstance(tensor, gs.Constant) for tensor in node.inputs)]
    for node in found:
        result = node.outputs[0]
        redirect(graph, result, gs.Constant(integers_of(result), run([node], {}, result, opsets_of(graph))))
    return len(found)


def _may_fold(node: gs.Node) -> bool:
    """Whether `node` reads constants alone, those that graphsurgeon leaves as they are aside, or holds a graph."""
    fixed = all(isinstance(tensor, gs.Constant) or tensor.is_empty() for tensor in node.inputs)
    return _has_subgraph(node) or (fixed and node.op not in UNFOLDED)


def _may_not_end(node: gs.Node) -> bool:
    return node.op in UNBOUNDED or any(_may_not_end(inner) for inner in subgraph_nodes(node))


def fold_shapes(graph: gs.Graph) -> None:
    """Write fixed shapes as constants; graphsurgeon, which would too, overlooks that `Shape` may give a part."""
    for node in [node for node in graph.nodes if node.op == "Shape" and node.inputs[0].shape is not None]:
        sizes = list(node.inputs[0].shape)[node.attrs.get("start", 0) : node.attrs.get("end")]
        if all(isinstance(size, int) for size in sizes):
            redirect(graph, node.outputs[0], gs.Constant(f"{node.outputs[0].name}/sizes", np.array(sizes, np.int64)))


def merge_equal_constants(graph: gs.Graph) -> int:
    """Merge constants of equal content; returns how many were removed."""
    by_kind: dict[tuple[str, tuple[int, ...], bytes], list[gs.Constant]] = {}
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Constant) and not is_output(graph, tensor):
            start = tensor.values.flat[:START].tobytes()  # a whole hash is needed only where this is equal
            by_kind.setdefault((tensor.values.dtype.str, tensor.values.shape, start), []).append(tensor)
    merged = 0
    for alike in by_kind.values():
        first: dict[bytes, gs.Constant] = {}
        for tensor in alike if len(alike) > 1 else ():
            kept = first.setdefault(_content(tensor), tensor)
            if kept is not tensor:
                redirect(graph, tensor, kept)
                merged += 1
    return merged


def _content(tensor: gs.Constant) -> bytes:
    return hashlib.blake2b(
        np.ascontiguousarray(tensor.values).view(np.uint8).data if tensor.values.size else b""
    ).digest()


def drop_no_effect(graph: gs.Graph) -> int:
    """Remove nodes that only pass their input on; returns how many were removed."""
    dropped, types = 0, dict[str, int | None]()
    for node in list(graph.nodes):
        if not _has_no_effect(node, types) or (
            isinstance(node.inputs[0], gs.Constant) and is_output(graph, node.outputs[0])
        ):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if is_output(graph, result) and (producer(source) is None or is_output(graph, source)):
            continue
        node.outputs.clear()
        redirect(graph, result, source)
        node.inputs.clear()
        dropped += 1
    graph.nodes[:] = [node for node in graph.nodes if node.outputs]
    return dropped


def _has_no_effect(node: gs.Node, types: dict[str, int | None]) -> bool:
    if node.op == "Cast":
        return bool(element_type(node.inputs[0], types) == node.attrs["to"])
    if node.op in NO_EFFECT:
        mask_is_read = len(node.outputs) > 1 and node.outputs[1].outputs
        training = len(node.inputs) > 2 and bool(np.any(constant(node.inputs[2])))
        return not mask_is_read and not training
    return node.op in OF_MANY and len(node.inputs) == 1


def merge_equal_nodes(graph: gs.Graph) -> int:
    """Merge nodes that compute the same from the same inputs; returns how many were removed."""
    sort_nodes(graph)
    first: dict[tuple[object, ...], gs.Node] = {}
    merged = 0
    for node in graph.nodes:
        # equal dense layers stay apart: they have roles (query and key may start from equal weights)
        if (
            node.op in NOT_REPEATABLE
            or is_linear(node)
            or any(is_output(graph, t) for t in node.outputs)
            or _has_subgraph(node)
        ):
            continue
        attributes = tuple(sorted((str(name), attribute_text(value)) for name, value in node.attrs.items()))
        inputs = tuple("" if t.is_empty() else t.name for t in node.inputs)
        kept = first.setdefault((node.op, node.domain, attributes, inputs, len(node.outputs)), node)
        if kept is not node:
            for old, new in zip(list(node.outputs), kept.outputs, strict=True):
                redirect(graph, old, new)
            merged += 1
    return merged


def _has_subgraph(node: gs.Node) -> bool:
    return any(isinstance(value, gs.Graph) for value in node.attrs.values())


def bypass_same_shape(graph: gs.Graph) -> None:
    """Make an Identity of each node that reshapes, cuts or repeats, but whose result has the shape of its input."""
    for node in graph.nodes:
        if node.op in RESHAPING and _is_same_shape(node.inputs[0], node.outputs[0]) and not _may_reverse(node):
            node.op, node.attrs = "Identity", {}
            while len(node.inputs) > 1:
                node.inputs.pop()


def _is_same_shape(source: gs.Tensor, result: gs.Tensor) -> bool:
    return has_fixed_shape(source) and has_fixed_shape(result) and list(source.shape) == list(result.shape)


def _may_reverse(node: gs.Node) -> bool:
    """Whether `node` is a Slice whose steps are not known to go forwards."""
    steps = constant(node.inputs[4]) if node.op == "Slice" and len(node.inputs) > 4 else np.ones(1)
    return steps is None or bool((steps < 0).any())


def tidy(model: Model) -> None:
    """Remove identities, and constants and nodes that are there twice."""
    while merge_equal_constants(model.graph) + drop_no_effect(model.graph) + merge_equal_nodes(model.graph):
        model.changed()
    model.changed()
