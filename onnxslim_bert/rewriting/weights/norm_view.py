"""How much the first layer norm makes of an error in the word table: by row and by column."""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.embeddings import Embeddings
from onnxslim_bert.model.norm_form import find_norms

GAMMA = {"LayerNormalization": 1, "SimplifiedLayerNormalization": 1, "SkipLayerNormalization": 2}  # its input
SUMS = frozenset(["Add", "Sum", "Identity", "Cast"])


def norm_view(graph: gs.Graph, embeddings: Embeddings) -> tuple[Array, Array]:
    """Factors of rows [rows] and of columns [width] by which the first norm scales an error in the word table.

    A norm divides a token's vector by its deviation and multiplies its columns by gamma. The vector is the row with
    the mean position and the first token type added. All ones where no norm reads the sum of the tables.
    """
    tensors = graph.tensors()
    assert embeddings.word is not None
    table = tensors[embeddings.word].values
    gamma = _gamma(graph, tensors[embeddings.word])
    if gamma is None or gamma.shape != table.shape[1:]:
        return np.ones(len(table)), np.ones(table.shape[1])
    seen = table
    for name, row in ((embeddings.position, None), (embeddings.token_type, 0)):
        other = constant(tensors[name]) if name else None
        if other is not None and other.dtype.kind == "f" and other.shape[1:] == table.shape[1:]:
            seen = seen + (other.mean(0) if row is None else other[row])
    deviation = seen.std(1, dtype=np.float64)
    return 1 / np.maximum(deviation, 1e-3 * max(float(deviation.mean()), 1e-30)), np.abs(gamma).astype(np.float64)


def _gamma(graph: gs.Graph, table: gs.Tensor) -> Array | None:
    """Gamma of the first norm below the lookups in `table`, with nothing but sums in between."""
    norms: dict[int, Array] = {id(form.source): form.gamma.values for form in find_norms(graph)}
    for tensor in _sums(table):
        if id(tensor) in norms:
            return norms[id(tensor)]
        for node in tensor.outputs:
            if node.op in GAMMA:
                return constant(node.inputs[GAMMA[node.op]])
    return None


def _sums(table: gs.Tensor) -> Iterator[gs.Tensor]:
    """The rows that lookups in `table` give, and what they are parts of as a sum, nearest first."""
    front = [node.outputs[0] for node in table.outputs]
    seen = set[int]()
    while front:
        tensor = front.pop(0)
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor
            front.extend(node.outputs[0] for node in tensor.outputs if node.op in SUMS)
