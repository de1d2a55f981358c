"""Compute the last layer for the first token alone, when nothing else of it is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.attention import attention_style, emit_attention
from onnxslim_bert.contract import Change, Context, Pass
from onnxslim_bert.encoder import Layer
from onnxslim_bert.model import Model
from onnxslim_bert.regions import constant, nodes_between, opsets_of, producer, run
from onnxslim_bert.surgery import Builder, is_output, redirect
from onnxslim_bert.tokenwise import is_tokenwise

SELECTORS = frozenset(["Gather", "Slice", "Squeeze", "Reshape", "Identity"])
LONGEST_SELECTION = 3  # nodes with which an exporter writes x[:, 0]


@dataclass(frozen=True)
class FirstToken(Pass):
    """Let the last layer compute query, attention, output, feed-forward and norms for token 0 only.

    A classifier reads position 0 of the last layer and nothing else; keys and values are still needed for every token.
    Exact. That only position 0 is read is proven by running the nodes that read the last layer.
    """

    name: ClassVar[str] = "first-token"

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


def find_selection(model: Model, last: Layer) -> tuple[gs.Tensor, list[tuple[gs.Tensor, int]]] | str:
    """The last hidden state and the tensors [batch, 1?, hidden] that are its position 0, with ranks; or why not."""
    state = _last_state(model, last)
    if state is None:
        return "the model has no single last hidden state"
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


def _last_state(model: Model, last: Layer) -> gs.Tensor | None:
    """The tensor that leaves the encoder: the last one, following the last layer, that token-wise nodes give."""
    tensors = model.graph.tensors()
    final = last.down or last.output
    current = tensors[final.result]
    while len(current.outputs) == 1 and is_tokenwise(current.outputs[0]) and not is_output(model.graph, current):
        following = current.outputs[0].outputs[0]
        if current.outputs[0].op == "Tanh" or producer(following) is None:
            break
        current = following
    return current


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


class _NotTokenwiseError(Exception):
    """A node on the way up would not give the same for one token alone."""


class _Selector:
    """Gives position 0 of tensors by computing upstream for that position alone, as far as keys and values allow."""

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
