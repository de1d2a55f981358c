"""Which position of the last hidden state the rest of a model reads."""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import is_output
from onnxslim_bert.graph.probe import nodes_between, opsets_of, producer, run
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.tokenwise import is_tokenwise

SELECTORS = frozenset(["Gather", "Slice", "Squeeze", "Reshape", "Identity"])
LONGEST_SELECTION = 3  # nodes with which an exporter writes x[:, 0]


def find_selection(model: Model, last: Layer) -> tuple[gs.Tensor, list[tuple[gs.Tensor, int]]] | str:
    """The last hidden state and the tensors that are its position 0, when the model reads no other position of it.

    Each comes with its rank: 2 for [batch, hidden], 3 for [batch, 1, hidden]. Else the reason why not, in words.
    """
    state = leaving_states(model, last)[-1]
    if is_output(model.graph, state):
        return f"the whole last hidden state is an output ({state.name!r})"
    selected: list[tuple[gs.Tensor, int]] = []
    for reader in state.outputs:
        found = next((pair for tensor in _selections(reader) if (pair := _is_first(model, state, tensor))), None)
        if found is None:
            return f"node {reader.name!r} ({reader.op}) reads the last hidden state beyond position 0"
        if not any(found[0] is tensor for tensor, _ in selected):
            selected.append(found)
    return state, selected


def leaving_states(model: Model, last: Layer) -> list[gs.Tensor]:
    """What follows the last layer token by token, in order: its result, sums, norms, products."""
    tensors = model.graph.tensors()
    final = last.down or last.output
    current = tensors[final.result]
    found = [current]
    while len(current.outputs) == 1 and is_tokenwise(current.outputs[0]) and not is_output(model.graph, current):
        following = current.outputs[0].outputs[0]
        if current.outputs[0].op == "Tanh" or producer(following) is None:
            break
        current = following
        found.append(current)
    return found


def _selections(reader: gs.Node) -> Iterator[gs.Tensor]:
    node = reader
    for _ in range(LONGEST_SELECTION):
        if node.op not in SELECTORS:
            return
        yield node.outputs[0]
        if len(node.outputs[0].outputs) != 1:
            return
        node = node.outputs[0].outputs[0]


def _is_first(model: Model, state: gs.Tensor, tensor: gs.Tensor) -> tuple[gs.Tensor, int] | None:
    probe = np.random.default_rng(0).standard_normal((3, 5, model.encoder.hidden)).astype(np.float32)
    try:
        value = run(nodes_between([state], tensor), {state.name: probe}, tensor, opsets_of(model.graph))
    except ValueError:
        return None
    for rank, expected in ((2, probe[:, 0]), (3, probe[:, :1])):
        if value.shape == expected.shape and (value == expected).all():
            return tensor, rank
    return None
