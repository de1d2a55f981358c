"""Rewrite a graph so that rows which have their answer leave the batch."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import nodes_between, producer, read_by, subgraph_nodes
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.stream import stream_behind
from onnxslim_bert.model.token_masks import masks
from onnxslim_bert.rewriting.exits.heads import Head
from onnxslim_bert.rewriting.marks import EARLY_EXIT


class LeavingRows:
    """Writes exits into a model with one output [batch, classes], from the first layer to the last.

    Behind an exit there are as many rows as go on, none where all have left: ONNX Runtime's operators take tensors
    without rows (from which version on: `graph/exits.py`). What layers behind it read of the inputs is computed of the
    rows that go on.
    """

    def __init__(self, model: Model) -> None:
        self.graph = model.graph
        self.layers = model.encoder.layers
        self.build = EARLY_EXIT.builder(model.graph)
        known = masks(model.graph)
        tensors = model.graph.tensors()
        name = model.encoder.mask or (known[0].tensor.name if known else None)
        self.mask = tensors[name] if name is not None else None
        self.sources = [*model.graph.inputs, *([self.mask] if self.mask is not None and self.mask.inputs else [])]
        (self.output,) = model.graph.outputs
        self.answers = self._apart(self.output)
        self.exits: list[tuple[gs.Tensor, gs.Tensor]] = []  # the answers and the rows that go on, of each

    def stream(self, layer: Layer) -> gs.Tensor:
        """The tensor [batch, seq, hidden] through which all goes that later layers know of `layer` and those before.

        Raises PassError where there is none.
        """
        found = stream_behind(self.graph, self.layers, layer.index, self.sources, [self.answers])
        if isinstance(found, str):
            raise PassError(f"early-exit: {found}; run early-exit before the step that wrote this")
        return found

    def pooled(self, stream: gs.Tensor) -> gs.Tensor:
        """The mean over real tokens, [batch, 1, hidden]."""
        build = self.build
        if self.mask is None:
            sizes = build.node("Shape", "sizes", [stream])
            shape = build.node("Slice", "shape", [sizes, self._axis(0), self._axis(2)])
            real = build.node("Expand", "real", [build.constant("one", np.array([1], np.float32)), shape])
        else:
            real = build.node("Cast", "real", [self.mask], to=onnx.TensorProto.FLOAT)
        length = build.node("ReduceSum", "length", [real, self._axis(1)])
        share = build.node("Unsqueeze", "share", [build.node("Div", "share", [real, length]), self._axis(1)])
        return build.node("MatMul", "mean", [share, stream])

    def leave(self, layer: Layer, head: Head, certainty: float) -> None:
        """Let rows leave behind `layer` with the answers of `head`, where its likeliest class has this probability."""
        stream, build = self.stream(layer), self.build
        region = nodes_between([stream, *self.sources], self.answers)
        weight, bias = build.constant("weight", head.weight), build.constant("bias", head.bias)
        product = build.node("MatMul", "product", [self.pooled(stream), weight])
        answers = build.node("Squeeze", "answers", [build.node("Add", "answers", [product, bias]), self._axis(1)])
        chances = build.node("Softmax", "chances", [answers], axis=1)
        least = build.constant("certainty", np.array(certainty, np.float32))
        sure = build.node("GreaterOrEqual", "sure", [chances, least])  # NaN is not
        each = build.node("Cast", "sure", [sure], to=onnx.TensorProto.INT64)
        count = build.node("ReduceSum", "count", [each, self._axis(1)], keepdims=0)
        going = build.node("Equal", "going", [count, build.constant("none", np.array(0, np.int64))])
        rows = build.node("Squeeze", "rows", [build.node("NonZero", "rows", [going]), self._axis(0)])
        self.exits.append((answers, rows))
        self._go_on(region, stream, rows)

    def finish(self) -> None:
        """Write the answers of all rows to the model's output."""
        answers = self.answers
        for early, rows in reversed(self.exits):
            places = self.build.node("Unsqueeze", "places", [rows, self._axis(1)])
            answers = self.build.node("ScatterND", "all", [early, places, answers])
        node = producer(answers)
        assert node is not None
        node.outputs = [self.output]

    def _go_on(self, region: Sequence[gs.Node], stream: gs.Tensor, rows: gs.Tensor) -> None:
        """Let `region`, in order, compute its answers for `rows` alone."""
        kept = {id(stream): self._rows_of(stream, rows)}
        below = {id(stream)}
        for node in region:
            read = read_by(node)
            for tensor in read:
                if any(tensor is source for source in self.sources) and id(tensor) not in kept:
                    kept[id(tensor)] = self._rows_of(tensor, rows)
            if not any(id(tensor) in kept or id(tensor) in below for tensor in read):
                continue
            if any(id(tensor) in below for tensor in read):
                below |= {id(tensor) for tensor in node.outputs}
                for reader in (node, *subgraph_nodes(node)):
                    for i, tensor in enumerate(list(reader.inputs)):
                        reader.inputs[i] = kept.get(id(tensor), tensor)
                continue
            if subgraph_nodes(node):
                raise PassError(
                    f"early-exit: node {node.name!r} ({node.op}) has branches that read the inputs beside the stream; "
                    "run early-exit before the step that wrote it"
                )
            inputs = [kept.get(id(tensor), tensor) for tensor in node.inputs]
            written = self.build.nodes(node.op, node.name, inputs, len(node.outputs), node.domain or "", **node.attrs)
            kept |= {id(old): new for old, new in zip(node.outputs, written, strict=True)}
        if self.mask is not None and id(self.mask) not in kept:
            kept[id(self.mask)] = self._rows_of(self.mask, rows)
        self.mask = kept.get(id(self.mask))
        self.sources = [kept.get(id(tensor), tensor) for tensor in self.sources]

    def _rows_of(self, tensor: gs.Tensor, rows: gs.Tensor) -> gs.Tensor:
        return self.build.node("Gather", "going_on", [tensor, rows], axis=0)

    def _axis(self, number: int) -> gs.Constant:
        return self.build.constant("axis", np.array([number], np.int64))

    def _apart(self, output: gs.Tensor) -> gs.Tensor:
        """What wrote and read the model's output writes and reads this tensor instead."""
        node = producer(output)
        assert node is not None
        answers = gs.Variable(self.build.unique("last"))
        node.outputs[next(i for i, tensor in enumerate(node.outputs) if tensor is output)] = answers
        for reader in list(output.outputs):
            for i, tensor in enumerate(list(reader.inputs)):
                if tensor is output:
                    reader.inputs[i] = answers
        return answers
