"""Whether a pooling masks padding itself, as a mean over real tokens does; proven by running it."""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import is_output
from onnxslim_bert.graph.probe import inputs_of, nodes_between, opsets_of, run_all
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.region import FURTHER, is_close
from onnxslim_bert.model.selection import leaving_states
from onnxslim_bert.model.token_masks import probe_size


def padding_is_unread(model: Model, last: Layer, mask: gs.Tensor) -> bool:
    """Whether no answer depends on what the last hidden state holds where `mask`, a graph input, is 0.

    Each row of the probes has a real token. False where that cannot be told.
    """
    return any(_is_unread(model, state, mask) for state in reversed(leaving_states(model, last)))


def _is_unread(model: Model, state: gs.Tensor, mask: gs.Tensor) -> bool:
    if is_output(model.graph, state):
        return False
    nodes = list({id(n): n for output in model.graph.outputs for n in nodes_between([state], output)}.values())
    others = [tensor for tensor in inputs_of(nodes) if tensor is not state]
    if not any(tensor is mask for tensor in others) or any(tensor.inputs for tensor in others):
        return False
    order = {id(node): place for place, node in enumerate(model.graph.nodes)}
    nodes.sort(key=lambda node: order[id(node)])
    batch, seq = probe_size(model.graph)
    for held in _holes(batch, seq):
        rng = np.random.default_rng(0)
        states = rng.standard_normal((2, *held.shape, model.encoder.hidden)).astype(np.float32)
        states[1] = np.where(held[:, :, None], states[0], states[1])
        feeds: dict[str, Array] = {tensor.name: np.ones(held.shape, tensor.dtype) for tensor in others}
        feeds[mask.name] = held.astype(mask.dtype)
        try:
            before, after = (
                run_all(nodes, feeds | {state.name: values}, model.graph.outputs, opsets_of(model.graph))
                for values in states
            )
        except ValueError:
            return False
        if not all(is_close(x, y) for x, y in zip(before, after, strict=True) if x.dtype.kind == "f"):
            return False
    return True


def _holes(batch: int, seq: int) -> Iterator[Array]:
    """Masks, bool [batch, seq]: padding on the right, on the left, at random places."""
    for length in (seq, seq + FURTHER):
        places, rng = np.arange(length), np.random.default_rng(length)
        kept = rng.integers(1, length, (batch, 1))
        scattered = rng.random((batch, length)) < 0.5
        scattered[:, length // 2] = True
        yield from (places < kept, places >= length - kept, scattered)
