"""A model in two parts: what some constants do not reach, and what they do."""

from collections.abc import Collection, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import read_by
from onnxslim_bert.model.onnx_model import Model


def boundary(model: Model, names: Collection[str]) -> list[str]:
    """The tensors, graph inputs aside, that no constant of `names` reaches and that the rest of the model reads."""
    reached, needed = set[int](), dict[str, gs.Tensor]()
    for node in model.graph.nodes:  # in execution order
        read = [tensor for tensor in read_by(node) if not tensor.is_empty()]
        if any(tensor.name in names or id(tensor) in reached for tensor in read):
            reached |= {id(tensor) for tensor in node.outputs}
            needed |= {tensor.name: tensor for tensor in read if tensor.inputs and id(tensor) not in reached}
    needed |= {tensor.name: tensor for tensor in model.graph.outputs if id(tensor) not in reached}
    return list(needed)


def beyond(model: Model, given: Mapping[str, np.dtype]) -> Model:
    """The part of `model` that takes those of the tensors `given` that it has, and the inputs that it still needs."""
    part = model.clone()
    tensors = part.graph.tensors()
    inputs = {tensor.name for tensor in part.graph.inputs}
    for name in sorted(given.keys() & tensors.keys() - inputs):
        tensors[name].inputs.clear()
        tensors[name].dtype = given[name]
        part.graph.inputs.append(tensors[name])
    part.graph.cleanup(remove_unused_graph_inputs=True)
    return part
