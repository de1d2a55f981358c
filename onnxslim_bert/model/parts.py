"""Cut a model in two: the nodes above some constants, which do not depend on them, and the rest."""

from collections.abc import Collection, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph import garbage
from onnxslim_bert.graph.copies import with_nodes
from onnxslim_bert.graph.edit import drop_unused, is_output
from onnxslim_bert.graph.probe import read_by
from onnxslim_bert.model.onnx_model import Model


def boundary(model: Model, names: Collection[str]) -> list[str]:
    """The tensors at which a model can be cut above the constants `names`: they do not depend on them, nodes behind do.

    Graph inputs and constants are left out. Example: for the weights of layer 3 it is the state that layer 3 reads, and
    the mask.
    """
    reached, needed = set[int](), dict[str, gs.Tensor]()
    for node in model.graph.nodes:  # in execution order
        read = [tensor for tensor in read_by(node) if not tensor.is_empty()]
        if any(tensor.name in names or id(tensor) in reached for tensor in read):
            reached |= {id(tensor) for tensor in node.outputs}
            needed |= {tensor.name: tensor for tensor in read if tensor.inputs and id(tensor) not in reached}
    ends = [tensor for tensor in model.graph.outputs if not isinstance(tensor, gs.Constant)]
    needed |= {tensor.name: tensor for tensor in ends if id(tensor) not in reached}
    return list(needed)


def above(model: Model, names: Collection[str]) -> Model:
    """The part of `model` that makes its tensors `names`, to be written out: it has the model's own nodes and tensors.

    What lies behind them, thousands of nodes perhaps, is not looked at.
    """
    graph = model.graph
    writers = {tensor.name: node for node in graph.nodes for tensor in node.outputs}
    front, needed = [writers[name] for name in names if name in writers], set[int]()
    while front:
        node = front.pop()
        if id(node) not in needed:
            needed.add(id(node))
            front += [writers[tensor.name] for tensor in read_by(node) if tensor.name in writers]
    nodes, unwritten = [node for node in graph.nodes if id(node) in needed], {*names} - writers.keys()
    read = [tensor for name, tensor in model.constants().items() if name in unwritten] if unwritten else []
    return Model(with_nodes(graph, nodes, graph.inputs, [*graph.outputs, *read]), model.header, model.path)


def cut(model: Model, given: Mapping[str, np.dtype]) -> None:
    """Cut `model` at the tensors `given`, name -> type: it has them as inputs afterwards, and the same outputs.

    It keeps those of its own inputs that it still reads; names that it does not have are passed over.
    """
    graph = model.graph
    tensors = graph.tensors()
    for name in sorted(given.keys() & tensors.keys() - {tensor.name for tensor in graph.inputs}):
        tensors[name].dtype = given[name]
        graph.inputs.append(tensors[name])
    with garbage.kept():
        drop_unused(graph)
    graph.inputs = [tensor for tensor in graph.inputs if tensor.outputs or is_output(graph, tensor)]
