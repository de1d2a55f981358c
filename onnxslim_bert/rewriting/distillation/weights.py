"""Which constants of a graph are weights that training may move."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.onnx_model import Model


def trainable(model: Model, *, words: bool = False) -> list[str]:
    """The names of the weights of `model`, in the order in which they are read.

    A weight is a vector or a matrix of floats that is computed together with what the text gives: a dense matrix, a
    bias, the scale of a norm; and an embedding table. Numbers that the graph counts positions or hides padding with are
    none. words: the word table too, which by default stays as it is.

    Raises PassError when a weight is not float32.
    """
    found = _weights(model, words)
    narrow = [name for name in found if model.array(name).dtype != np.float32]
    if narrow:
        dtype = model.array(narrow[0]).dtype
        raise PassError(f"distill: the weight {narrow[0]!r} is {dtype}; {remedy(model.graph, dtype)}")
    return found


def _weights(model: Model, words: bool) -> list[str]:
    embeddings = embeddings_of(model)
    tables = {name for role, name in embeddings.tables.items() if words or role != "word"}
    found: dict[str, None] = {}
    activations: set[int] = set()
    for node in model.graph.nodes:
        is_lookup = any(tensor.name in embeddings.tables.values() for tensor in node.inputs)
        from_text = is_lookup or any(id(tensor) in activations for tensor in node.inputs)
        if not from_text or node.op == "Shape":
            continue
        activations |= {id(tensor) for tensor in node.outputs}
        found |= {t.name: None for t in node.inputs if _is_weight(t, node) and (not is_lookup or t.name in tables)}
    return list(found)


def _is_weight(tensor: gs.Tensor, node: gs.Node) -> bool:
    values = constant(tensor)
    if values is None or values.dtype.kind != "f" or values.size == 1:
        return False
    return values.ndim in (1, 2) or node.op in ("Conv", "LSTM")
