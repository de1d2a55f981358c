"""How many tokens a model has positions for."""

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, run
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.embeddings import first_position, table_of
from onnxslim_bert.model.onnx_model import Model

REAL = 2  # a token id that these models do not pad with


def most_tokens(model: Model) -> int | None:
    """The most tokens in a row that the model has positions for; None without a table of positions.

    It is fewer than the table's rows where numbers start late: RoBERTa's start at 2, so 514 rows serve 512 tokens.
    """
    table = embeddings_of(model).position
    if table is None:
        return None
    rows = len(model.array(table))
    for node in model.graph.nodes:
        read = table_of(node)
        if read is not None and read.name == table and node.op != "Slice":
            places = positions_of(model, node.inputs[1], rows)
            return int((places < rows).sum()) or rows
    return rows


def positions_of(model: Model, indices: gs.Tensor, seq: int) -> Array:
    """The positions of a row of `seq` real tokens, [seq], or of as many as there are; [0] when they cannot be told."""
    nodes = nodes_between([], indices)
    if not nodes:  # constants, or the caller's own
        values = constant(indices)
        return np.arange(seq) + first_position(indices) if values is None else values.reshape(-1)
    feeds = {t.name: np.full(_row_shape(t, seq), REAL, t.dtype or np.int64) for t in inputs_of(nodes)}
    try:
        return run(nodes, feeds, indices, opsets_of(model.graph)).reshape(-1)
    except ValueError:
        return np.zeros(0)


def _row_shape(tensor: gs.Tensor, seq: int) -> tuple[int, ...]:
    """The shape of one row of `seq` tokens: of a model of multiple choice that of as many choices as it fixes."""
    if tensor.shape is None or len(tensor.shape) != 3:
        return 1, seq
    return 1, tensor.shape[1] if isinstance(tensor.shape[1], int) else 1, seq
