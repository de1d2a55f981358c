"""Rewrite a graph so that its later layers see only the tokens that were kept."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.tokenwise import is_tokenwise
from onnxslim_bert.model.write_attention import attention_style, emit_attention
from onnxslim_bert.rewriting.tokens.received_attention import axis, emit_received_attention

END = np.array([np.iinfo(np.int64).max])


class KeptTokens:
    """Rewrites the layers of a model one after the other, and holds the mask [batch, kept] of the tokens left so far.

    first: the first layer that drops tokens. All layers from there on must have an attention of proven form and, but
    for the last, a residual sum behind it.
    """

    def __init__(self, model: Model, first: Layer) -> None:
        self.model = model
        build = Builder(model.graph, "drop-tokens")
        name = first.form.mask if first.form is not None else None
        self.padded = name is not None
        if name is not None:
            self.mask = build.node("Cast", "mask", [model.graph.tensors()[name]], to=onnx.TensorProto.INT64)
        else:
            sizes = build.node("Shape", "sizes", [model.graph.tensors()[first.key.source]])
            shape = build.node("Slice", "shape", [sizes, axis(build, 0), axis(build, 2)])
            self.mask = build.node("Expand", "mask", [axis(build, 1), shape])
        self.others = build.node("ReduceSum", "others", [_behind_first(build, self.mask), axis(build, 1)], keepdims=0)

    def attend(self, layer: Layer) -> None:
        """Write the attention of `layer` anew, with the mask of the tokens that are left."""
        old = self.model.graph.tensors()[layer.context]
        build = Builder(self.model.graph, f"layer.{layer.index}/kept")
        mask = self.mask if self.padded else None
        new = emit_attention(build, attention_style(old), *self._attention(layer), mask)
        redirect(self.model.graph, old, new)

    def drop(self, layer: Layer, counts: Array) -> None:
        """Drop tokens behind the attention of `layer`: a text of n tokens besides position 0 keeps counts[n].

        counts: int64, position 0 included. Example: counts [1, 2, 2, 3] leave 3 of a text of 4 tokens.
        """
        build = Builder(self.model.graph, f"layer.{layer.index}/drop")
        count = build.node("Gather", "count", [build.constant("counts", counts), self.others])
        most = build.node("ReduceMax", "most", [count], keepdims=1)
        best = build.nodes("TopK", "best", [self._importance(build, layer), most], 2, axis=1)[1]
        places = build.node("Unsqueeze", "places", [best, axis(build, -1)])
        stream = residual_sum(self.model, layer)
        assert stream is not None
        readers = [(node, i) for node in stream.outputs for i, tensor in enumerate(node.inputs) if tensor is stream]
        kept = build.node("GatherND", "kept", [stream, places], batch_dims=1)
        for node, i in readers:
            node.inputs[i] = kept
        # a text with fewer tokens than the tensor has places leaves the last ones, its least, unused
        all_ranks = build.constant("ranks", np.arange(len(counts), dtype=np.int64))
        ranks = build.node("Slice", "ranks", [all_ranks, axis(build, 0), most])
        used = build.node("Less", "used", [ranks, build.node("Unsqueeze", "count", [count, axis(build, 1)])])
        real = build.node("GatherND", "real", [self.mask, places], batch_dims=1)
        self.mask = build.node("Mul", "mask", [real, build.node("Cast", "used", [used], to=onnx.TensorProto.INT64)])

    def _importance(self, build: Builder, layer: Layer) -> gs.Tensor:
        """How important each token is, [batch, seq]: the attention that it receives; position 0 more than any."""
        received = emit_received_attention(build, *self._attention(layer), self.mask)
        before = build.constant("before", np.array([0, 1, 0, 0], np.int64))
        highest = build.constant("highest", np.array(np.inf, np.float32))
        return build.node("Pad", "importance", [_behind_first(build, received), before, highest])

    def _attention(self, layer: Layer) -> tuple[list[gs.Tensor], int, int, float]:
        """Query, key and value, their width, the heads and the scale."""
        assert layer.form is not None
        tensors = self.model.graph.tensors()
        roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
        return roles, layer.query.d_out, layer.heads, layer.form.scale


def residual_sum(model: Model, layer: Layer) -> gs.Tensor | None:
    """The stream between attention and feed-forward, before any norm: the layer's input plus its attention."""
    current = model.graph.tensors()[layer.output.result]
    while len(current.outputs) == 1 and is_tokenwise(reader := current.outputs[0]):
        current = reader.outputs[0]
        if reader.op in ("Add", "Sum") and all(constant(tensor) is None for tensor in reader.inputs):
            return current
    return None


def _behind_first(build: Builder, tensor: gs.Tensor) -> gs.Tensor:
    """[batch, seq] -> [batch, seq - 1] without position 0."""
    return build.node("Slice", "behind", [tensor, axis(build, 1), build.constant("end", END), axis(build, 1)])
