"""Where a narrowed residual stream is refitted: which dense layers read or write it, in execution order."""

from collections import Counter
from dataclasses import replace

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.stream import Stream
from onnxslim_bert.rewriting.pruning.stream_refit import Place


def refit_places(model: Model, stream: Stream, last: str | None) -> list[Place]:
    """The places of the narrowed `model` at which layers can be refitted, first to last.

    A layer can where it has a bias and no other layer uses its matrix, which is not the word table either. last: the
    state that a dense layer restores, if any.
    """
    order = {node.name: i for i, node in enumerate(model.graph.nodes)}
    users = Counter(tensor.name for node in model.graph.nodes for tensor in node.inputs)
    linears = [read_linear(node) for node in model.graph.nodes if is_linear(node)]
    alone = [
        linear for linear in linears if linear.bias and users[linear.weight] == 1 and linear.weight not in stream.tied
    ]
    reading = {cut.node for cut in stream.cuts if cut.reads}
    writing = {cut.node for cut in stream.cuts if not cut.reads}
    found: dict[str, list[str]] = {}
    places = list[Place]()
    for linear in alone:
        if linear.node in reading and linear.source in stream.axes:
            found.setdefault(linear.source, []).append(linear.node)
        elif linear.node in writing and linear.result in stream.axes and (added := _sum(model, linear)) is not None:
            places.append(Place((linear.node,), was=added[1], added=added[0]))
    places += [Place(tuple(nodes), was=source) for source, nodes in found.items()]
    if last is not None:
        wide = producer(model.graph.tensors()[last])
        assert wide is not None
        restored = next(node for t in wide.inputs if (node := producer(t)) is not None)
        narrow = restored.inputs[0].name  # in the whole encoder this is `last` itself
        places = [replace(place, was=last) if place.was == narrow else place for place in places]
        places.append(Place((restored.name,), was=last))
    return sorted(places, key=lambda place: order[place.nodes[0]])


def _sum(model: Model, linear: Linear) -> tuple[str, str] | None:
    """What the result of a layer is added to, and the sum; None where it is not simply added."""
    result: gs.Tensor = model.graph.tensors()[linear.result]
    if len(result.outputs) == 1 and (node := result.outputs[0]).op in ("Add", "Sum"):
        others = [tensor for tensor in node.inputs if tensor is not result]
        if len(others) == 1 and constant(others[0]) is None:
            return str(others[0].name), str(node.outputs[0].name)
    return None
