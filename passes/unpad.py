"""Run the dense layers on the tokens that exist."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, nodes_between, producer, read_by, subgraph_nodes
from onnxslim_bert.graph.words import shown
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.padding import padding_mask
from onnxslim_bert.model.pooling import padding_is_unread
from onnxslim_bert.model.selection import find_selection
from onnxslim_bert.model.tokenwise import is_tokenwise
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.marks import UNPADDED
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class Unpad(Pass):
    """Drop padding before the first layer and bring it back around attention only.

    In a ragged batch [batch, seq] the norms, activations and dense layers run on the [tokens] that the mask keeps,
    found by a Gather; attention reads [batch, seq] again through the inverse Gather. Position 0 is always kept.
    Example: 8 rows of 128 positions that hold 300 tokens are computed as 300 rows, not as 1,024.

    Attention of any form will do in which what padding holds reaches no real token: with rotary or relative positions,
    with a window. Where its formula is not known, rows whose position 0 is padding are computed whole.

    Only for models that read nothing at padding of the last layer, which is proven: position 0 alone, or a mean or
    another pooling of real tokens. Others would read values at padding positions, which change. Exact, except for rows
    of padding alone, and rows whose only real tokens the graph itself hides (token 0, by a mask made of ids != 0): they
    attend to nothing and may answer otherwise. It costs a few copies, so it pays in batches of unequal lengths and not
    at batch 1.

    Zeng et al. 2022, https://arxiv.org/abs/2208.08124
    """

    name: ClassVar[str] = "unpad"
    exact: ClassVar[float | None] = 1e-5

    def apply(self, model: Model, ctx: Context) -> Change:
        found = _mask_or_why_not(model)
        if isinstance(found, str):
            return Change(0, found)
        _Unpadder(model, found).run()
        return Change(1, f"{plural(len(model.encoder.layers), 'layer')} on real tokens alone")


def _mask_or_why_not(model: Model) -> gs.Tensor | str:
    """The mask that says what padding is; or, in words, why it cannot be dropped."""
    encoder = model.encoder
    if UNPADDED.is_in(model.graph):
        return "the model is unpadded already"
    if any(isinstance(length, int) for tensor in model.graph.inputs for length in tensor.shape or ()):
        return "the inputs have fixed shapes, and without padding shapes depend on the rows; unpad before `fix-shapes`"
    if any(node.op == "DynamicQuantizeLinear" for node in model.graph.nodes):
        return "activation ranges are found at run time, and without padding they are others; unpad before quantizing"
    tensors, known = model.graph.tensors(), dict[str, str | None]()
    first: str | None = None
    for layer in encoder.layers:
        mask = layer.form.mask if layer.form is not None else _keeping_apart(model, layer, known)
        if mask is None and layer.form is None:
            return f"layer {layer.index}'s attention is not proven: {layer.reason}"
        if mask is None:
            return "the model reads no attention mask, so it has no padding to drop"
        first = first or mask
        if mask != first:
            hidden = f"layer {layer.index} hides keys by {shown(mask)}, those before it by {shown(first)}"
            return f"{hidden}, and one mask says what is padding; unpad before `drop-tokens`, which makes another"
    mask, last = tensors[str(first)], encoder.layers[-1]
    selection = "" if last.first_token else find_selection(model, last)
    if selection and isinstance(selection, str) and not padding_is_unread(model, last, mask):
        return f"padding positions are read: {selection}"
    return mask


def _keeping_apart(model: Model, layer: Layer, known: dict[str, str | None]) -> str | None:
    """The mask of the attention of `layer`, whose formula is not known. known: what was found, by a region's key."""
    region = attention_region(model.graph, layer)
    key = region.key(layer.heads)
    if key not in known:
        known[key] = padding_mask(region)
    return known[key]


class _Unpadder:
    def __init__(self, model: Model, mask: gs.Tensor) -> None:
        self.model = model
        self.graph = model.graph
        self.build = UNPADDED.builder(model.graph)
        self.packed: dict[int, gs.Tensor] = {}  # by the id of a tensor, its [tokens, width] form
        self.padded: dict[int, gs.Tensor] = {}  # by the id of a packed tensor, its [batch, seq, width] form
        self.tokens, self.places, self.shape = self._index(mask)

    def run(self) -> None:
        """Pack the encoder's input and each attention's result, and let every token-wise node read packed tensors."""
        layers = self.model.encoder.layers
        tensors = self.graph.tensors()
        start = _stream_start(tensors[layers[0].key.source])
        contexts = [tensors[layer.context] for layer in layers if not layer.first_token]
        nodes = list(self.graph.nodes)
        after = _after(start, nodes)
        for tensor in (start, *contexts):
            self.packed[id(tensor)] = self._pack(tensor)
        for node in after:
            self._follow(node)
        self.model.changed()

    def _follow(self, node: gs.Node) -> None:
        read = [t for t in read_by(node) if id(t) in self.packed]
        if not read:
            return
        rest = [t for t in node.inputs if id(t) not in self.packed and not t.is_empty() and not _is_constant(t)]
        if is_tokenwise(node) and not rest:
            for i, tensor in enumerate(list(node.inputs)):
                node.inputs[i] = self.packed.get(id(tensor), tensor)
            for tensor in node.outputs:
                self.packed[id(tensor)] = tensor
            return
        for reader in (node, *subgraph_nodes(node)):  # an attention, or the selection of position 0
            for i, tensor in enumerate(list(reader.inputs)):
                if self.packed.get(id(tensor)) is tensor:
                    reader.inputs[i] = self._pad(tensor)

    def _index(self, mask: gs.Tensor) -> tuple[gs.Tensor, gs.Tensor, gs.Tensor]:
        """Three tensors that are computed from the mask [batch, seq].

        tokens [tokens]: the places in the flattened batch that are kept. places [batch * seq]: for each place, the
        number of its token among those kept (of the last one before it, where it is padding). The shape
        [batch, seq, -1]. Example: the mask [[1, 1, 0], [1, 0, 0]] gives tokens [0, 1, 3] and places [0, 1, 1, 2, 2, 2].
        """
        build = self.build
        one, zero = build.constant("one", np.array([1], np.int64)), build.constant("zero", np.array([0], np.int64))
        end = build.constant("end", np.array([np.iinfo(np.int64).max], np.int64))
        all_axes = build.constant("flat", np.array([-1], np.int64))
        real = build.node("Cast", "real", [mask], to=onnx.TensorProto.BOOL)
        kept = build.node("Cast", "kept", [real], to=onnx.TensorProto.INT64)
        first = build.node("Slice", "first", [kept, zero, one, one])
        if any(layer.form is None for layer in self.model.encoder.layers):
            kept = build.node("Max", "kept", [kept, build.node("Sub", "whole", [one, first])])
        else:
            others = build.node("Slice", "others", [kept, one, end, one])
            kept = build.node("Concat", "kept", [build.node("Max", "first", [first, one]), others], axis=1)
        flat = build.node("Reshape", "flat", [kept, all_axes])
        tokens = build.node("Reshape", "tokens", [build.node("NonZero", "tokens", [flat]), all_axes])
        count = build.node("CumSum", "count", [flat, build.constant("axis", np.array(0, np.int64))])
        places = build.node("Sub", "places", [count, one])
        size = build.node("Shape", "size", [mask])
        return tokens, places, build.node("Concat", "shape", [size, all_axes], axis=0)

    def _pack(self, tensor: gs.Tensor) -> gs.Tensor:
        width = self.model.encoder.hidden
        if tensor.name in (contexts := {layer.context: layer.output.d_in for layer in self.model.encoder.layers}):
            width = contexts[tensor.name]
        rows = self.build.node(
            "Reshape", "rows", [tensor, self.build.constant("rows", np.array([-1, width], np.int64))]
        )
        return self.build.node("Gather", "packed", [rows, self.tokens], axis=0)

    def _pad(self, packed: gs.Tensor) -> gs.Tensor:
        if id(packed) not in self.padded:
            rows = self.build.node("Gather", "padded", [packed, self.places], axis=0)
            self.padded[id(packed)] = self.build.node("Reshape", "padded", [rows, self.shape])
        return self.padded[id(packed)]


def _is_constant(tensor: gs.Tensor) -> bool:
    """Whether `tensor` is a constant, or one dequantized."""
    above = producer(tensor)
    stored = above.inputs[0] if above is not None and above.op == "DequantizeLinear" else tensor
    return constant(stored) is not None


def _stream_start(source: gs.Tensor) -> gs.Tensor:
    """The residual stream that enters the first layer: above the layer's own scales and, if pre-norm, its norm."""
    node = producer(source)
    while node is not None and (
        node.op in ("Mul", "Clip") or (node.op == "LayerNormalization" and len(node.inputs[0].outputs) > 1)
    ):
        source = node.inputs[0]
        node = producer(source)
    return source


def _after(start: gs.Tensor, nodes: list[gs.Node]) -> list[gs.Node]:
    before = {id(node) for node in nodes_between([], start)}
    return [node for node in nodes if id(node) not in before]
