"""Let the later layers of a classifier work on the tokens that matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant, nodes_between, producer, read_by
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.selection import find_selection
from onnxslim_bert.model.tokenwise import is_tokenwise
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.marks import UNPADDED
from onnxslim_bert.rewriting.tokens.kept_tokens import KeptTokens, residual_sum


@dataclass(frozen=True)
class DropTokens(Pass):
    """Drop the tokens that receive the least attention, between attention and feed-forward of some layers.

    Position 0 always stays, and padding goes first. How many tokens a text keeps depends on its own length alone, so
    its answer is the same in any batch; tensors are as long as the text that keeps the most. Example: with keep=0.5 and
    at_least=16, texts of 60, 20 and 10 tokens keep 30, 16 and 10.

    Only for models that read nothing but position 0 of the last layer; that is proven, as `first-token` does. Run it
    after `fuse` and `first-token`.

    keep: share of a text's tokens that is left after the last drop, in (0, 1].
    after: the first layer that drops tokens, counted from 0.
    steps: how many layers in a row drop tokens, each the same share. Example: keep=0.25, steps=2 halves them twice.
    at_least: tokens that stay, 2 or more; shorter texts stay whole.

    Goyal et al. 2020 (PoWER-BERT), https://arxiv.org/abs/2001.08950
    """

    name: ClassVar[str] = "drop-tokens"
    keep: float = 0.5
    after: int = 2
    steps: int = 1
    at_least: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep <= 1:
            raise PassError(f"drop-tokens: keep={self.keep} is not in (0, 1]")
        for option, least in (("after", 0), ("steps", 1), ("at_least", 2)):
            if (value := getattr(self, option)) < least:
                raise PassError(f"drop-tokens: {option.replace('_', '-')}={value} is less than {least}")

    def apply(self, model: Model, ctx: Context) -> Change:
        encoder = model.encoder
        last = len(encoder.layers) - 2  # the last layer with another behind it
        if last < 0:
            raise PassError(
                "drop-tokens: the encoder has 1 layer, and tokens are dropped in one that has another behind it"
            )
        if self.after + self.steps - 1 > last:
            asked = f"after={self.after} and steps={self.steps}"
            raise PassError(f"drop-tokens: {asked} go beyond layer {last}, the last but one (counted from 0)")
        dense_layers(model)  # float32, or a PassError
        if reason := why_not(model, self.after):
            return Change(0, reason)
        longest = len(model.array(str(encoder.embeddings.position)))
        shares = {self.after + i: self.keep ** ((i + 1) / self.steps) for i in range(self.steps)}
        kept = KeptTokens(model, encoder.layers[self.after])
        for layer in encoder.layers[self.after :]:
            if layer.index > self.after:
                kept.attend(layer)
            if layer.index in shares:
                kept.drop(layer, kept_counts(longest, shares[layer.index], self.at_least))
        model.changed()
        left = ", ".join(f"{100 * share:.0f} % in layer {index}" for index, share in shares.items())
        return Change(self.steps, f"tokens left: {left}, but {self.at_least} at least")


def kept_counts(longest: int, share: float, at_least: int) -> Array:
    """How many tokens stay of texts of 1, 2, ... `longest` tokens, int64 [longest].

    `share` of them, rounded up, but `at_least`, or all where there are fewer. Example: 3 of 5 with share=0.5,
    at_least=2.
    """
    lengths = np.arange(1, longest + 1)
    kept: Array = np.maximum(np.ceil(share * lengths - 1e-9).astype(np.int64), np.minimum(lengths, at_least))
    return kept


def why_not(model: Model, first: int) -> str:
    """Why layer `first` and those behind it cannot drop tokens; empty when they can."""
    encoder, tensors = model.encoder, model.graph.tensors()
    if UNPADDED.is_in(model.graph):
        return "the model is unpadded, and a batch is no longer rows of tokens; drop tokens before `unpad`"
    if encoder.embeddings.position is None:
        return "no table of positions says how long a text can be"
    for layer in encoder.layers[first:]:
        if layer.form is None:
            return f"layer {layer.index}'s attention is not proven: {layer.reason}"
        if (above := producer(tensors[layer.context])) is not None and above.op == "If":
            return f"layer {layer.index}'s attention is chosen at run time; drop tokens before `skip-mask`"
        if layer.index < len(encoder.layers) - 1 and residual_sum(model, layer) is None:
            return f"layer {layer.index} has no residual sum behind its attention"
    state = None
    if not encoder.layers[-1].first_token:
        selection = find_selection(model, encoder.layers[-1])
        if isinstance(selection, str):
            return f"every token is needed: {selection}"
        state = selection[0]
    return _what_needs_all(model, encoder.layers[first:], state)


def _what_needs_all(model: Model, layers: Sequence[Layer], state: gs.Tensor | None) -> str:
    """What besides attention needs a token that the first of `layers` would drop; empty when nothing does.

    state: the last hidden state, of which only position 0 is read; None when the last layer computes no other.
    """
    tensors = model.graph.tensors()
    fewer = {id(residual_sum(model, layers[0]))}  # tensors that would lose tokens
    attention: set[int] = set()
    for layer in layers[1:]:
        names = (layer.query.result, layer.key.result, layer.value.result, layer.key.source)
        attention |= {id(node) for node in nodes_between([tensors[n] for n in names], tensors[layer.context])}
        if not layer.first_token:
            fewer.add(id(tensors[layer.context]))
    for node in model.graph.nodes:
        read = [tensor for tensor in read_by(node) if id(tensor) in fewer and tensor is not state]
        if not read or id(node) in attention or (state is None and _takes_first(node)):
            continue
        if not is_tokenwise(node) or any(id(t) not in fewer and constant(t) is None for t in node.inputs):
            return f"node {node.name!r} ({node.op}) needs every token of {read[0].name!r}; `fuse` first if it is a norm"
        fewer |= {id(tensor) for tensor in node.outputs}
    shown = next((tensor.name for tensor in model.graph.outputs if id(tensor) in fewer), None)
    return f"every token of {shown!r} is an output" if shown is not None else ""


def _takes_first(node: gs.Node) -> bool:
    """Whether `node` gives position 0 of its input, as `first-token` writes it."""
    bounds = [constant(tensor) for tensor in node.inputs[1:4]]
    return node.op == "Slice" and [None if x is None else x.tolist() for x in bounds] == [[0], [1], [1]]
