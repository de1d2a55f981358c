"""Compute the last layer for the first token alone, when nothing else of it is read."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant, nodes_between, producer
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.selection import find_selection
from onnxslim_bert.model.tokenwise import is_tokenwise
from onnxslim_bert.model.write_attention import attention_style, emit_attention
from onnxslim_bert.rewriting.contract import Change, Context, Pass


@dataclass(frozen=True)
class FirstToken(Pass):
    """Let the last layer compute query, attention, output, feed-forward and norms for token 0 only.

    A classifier reads position 0 of the last layer and nothing else; keys and values are still needed for every token.
    That only position 0 is read is proven by running the nodes that read the last layer. Exact for rows with a real
    token; rows of padding alone, which attend to nothing, may answer otherwise.
    """

    name: ClassVar[str] = "first-token"
    exact: ClassVar[float | None] = 1e-5

    def apply(self, model: Model, ctx: Context) -> Change:
        last = model.encoder.layers[-1]
        if last.first_token:
            return Change(0, "the last layer computes one token already")
        if last.form is None:
            return Change(0, f"the last layer's attention is not proven: {last.reason}")
        selection = find_selection(model, last)
        if isinstance(selection, str):
            return Change(0, selection)
        state, selected = selection
        try:
            first = _Selector(model, last).first(state)
        except _NotTokenwiseError as error:
            model.changed()
            return Change(0, str(error))
        for tensor, rank in selected:
            build = Builder(model.graph, "first-token")
            axis = build.constant("axis", np.array([1], np.int64))
            redirect(model.graph, tensor, first if rank == 3 else build.node("Squeeze", "selected", [first, axis]))
        model.changed()
        return Change(1, f"layer {last.index} computes one token")


class _NotTokenwiseError(Exception):
    """A node on the way up would not give the same for one token alone."""


class _Selector:
    """Writes nodes that compute a tensor for position 0 alone.

    It goes up from the tensor through the last layer and writes each node again for one token. Where it reaches what
    keys and values need for every token, the layer's input, it cuts position 0 out.
    """

    def __init__(self, model: Model, last: Layer) -> None:
        self.model = model
        self.last = last
        tensors = model.graph.tensors()
        shared = [tensors[last.key.source], tensors[last.value.source]]
        above = {id(t) for node in nodes_between([], shared[0]) for t in node.outputs}
        self.needed_whole = above | {id(t) for t in shared}
        self.build = Builder(model.graph, f"layer.{last.index}/first")
        self.done: dict[int, gs.Tensor] = {}

    def first(self, tensor: gs.Tensor) -> gs.Tensor:
        """[batch, seq, width] tensor -> its [batch, 1, width] at position 0."""
        if id(tensor) not in self.done:
            self.done[id(tensor)] = self._first(tensor)
        return self.done[id(tensor)]

    def _first(self, tensor: gs.Tensor) -> gs.Tensor:
        node = producer(tensor)
        if id(tensor) in self.needed_whole or node is None:
            bounds = [np.array([bound], np.int64) for bound in (0, 1, 1)]
            names = ("start", "end", "axis")
            cuts: list[gs.Tensor | None] = [
                self.build.constant(name, bound) for name, bound in zip(names, bounds, strict=True)
            ]
            return self.build.node("Slice", "token", [tensor, *cuts])
        if tensor.name == self.last.context:
            return self._attention(tensor)
        if is_tokenwise(node):
            inputs = [t if t.is_empty() or constant(t) is not None else self.first(t) for t in node.inputs]
            return self.build.node(node.op, node.name, inputs, node.domain or "", **node.attrs)
        raise _NotTokenwiseError(f"node {node.name!r} ({node.op}) of the last layer mixes tokens")

    def _attention(self, context: gs.Tensor) -> gs.Tensor:
        tensors = self.model.graph.tensors()
        form = self.last.form
        assert form is not None
        query, key, value = (tensors[x.result] for x in (self.last.query, self.last.key, self.last.value))
        mask = tensors[form.mask] if form.mask else None
        roles = [self.first(query), key, value]
        return emit_attention(
            self.build, attention_style(context), roles, self.last.query.d_out, self.last.heads, form.scale, mask
        )
