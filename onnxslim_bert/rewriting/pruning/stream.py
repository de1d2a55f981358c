"""Follow the channels of the residual stream through the graph: everything that has to become narrower with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import is_output
from onnxslim_bert.graph.probe import read_by
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pruning.channel_axes import ELEMENTWISE, Group, Shapes, axis_groups

WRITERS = ("output", "down")
MIXES = "does not treat the stream's channels one by one; needed operators that do, constant matrices and norms"


class Cut(NamedTuple):
    """A constant that loses channels where one node reads it. reads: its rows meet channels of what it multiplies."""

    node: str
    position: int
    axis: int
    reads: bool


@dataclass
class Stream:
    """The residual stream of an encoder, by names.

    width: its channels. axes: tensor -> the axis of its channels, from the end; of a constant, one of them.
    cuts: the constants along it. sized: the nodes that write it in a shape that they are given.
    outputs: the graph's outputs that it reaches.
    tied: constants that are the word table turned over, whose columns meet those of what they multiply.
    """

    width: int
    axes: dict[str, int] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    sized: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)


def follow_stream(model: Model, values: Mapping[str, Array], last: str | None = None) -> Stream:
    """The stream that the first layer reads, followed in both directions through all nodes that keep channels apart.

    values: what each tensor of the graph held in one run. last: a tensor behind which it is not followed. Raises
    PassError at a node that mixes channels otherwise than by a constant matrix or a norm, and when the stream of the
    first layer is not that of every other.
    """
    return _Follower(model, values, last).stream


class _Follower:
    def __init__(self, model: Model, values: Mapping[str, Array], last: str | None) -> None:
        self.graph, self.last = model.graph, last
        self.stream = Stream(model.encoder.hidden)
        self.shapes: Shapes = {
            id(tensor): np.shape(tensor.values if isinstance(tensor, gs.Constant) else values[tensor.name])
            for tensor in model.graph.tensors().values()
            if isinstance(tensor, gs.Constant) or tensor.name in values
        }
        self.readers: dict[int, list[gs.Node]] = {}
        for node in model.graph.nodes:
            for tensor in read_by(node):
                self.readers.setdefault(id(tensor), []).append(node)
        self.axes: dict[int, list[int]] = {}
        self.front: list[tuple[gs.Tensor, int]] = []
        self.groups: dict[int, list[Group]] = {}
        self.cuts: dict[Cut, None] = {}
        self.norms: dict[int, gs.Node] = {}
        tensors = model.graph.tensors()
        self.mark(tensors[model.encoder.layers[0].query.source], -1, "the first layer")
        for name in _turned_over(model):
            self.stream.tied.append(name)
            self.mark(tensors[name], -2, f"the matrix {name!r}, which is the word table,")
        while self.front:
            tensor, axis = self.front.pop()
            if tensor.name != last:
                for node in self.readers.get(id(tensor), ()):
                    self.pass_on(node, tensor, axis)
            for node in tensor.inputs:
                self.pass_on(node, tensor, axis)
        self.check_layers(model)
        for node in self.norms.values():
            self.check_norm(node)
        self.stream.axes = {name: self.axes[id(t)][0] for name, t in tensors.items() if id(t) in self.axes}
        self.stream.cuts = list(self.cuts)
        self.stream.outputs = [t.name for t in self.graph.outputs if id(t) in self.axes and t.name != last]

    def mark(self, tensor: gs.Tensor, axis: int, place: str) -> None:
        """Note that channels of `tensor` lie on `axis`, and go on from there. A matrix may have some on both axes."""
        known = self.axes.setdefault(id(tensor), [])
        if axis not in known:
            if known and not isinstance(tensor, gs.Constant):
                raise PassError(f"prune-hidden: {place} mixes the stream's channels with something else")
            if self.shapes[id(tensor)][axis] != self.stream.width:
                found = f"{self.shapes[id(tensor)][axis]} channels, and the stream has {self.stream.width}"
                raise PassError(f"prune-hidden: {place} has {found}")
            known.append(axis)
            self.front.append((tensor, axis))

    def pass_on(self, node: gs.Node, tensor: gs.Tensor, axis: int) -> None:
        """Mark what stands beside the channels of `tensor` at `node`."""
        place = f"node {node.name!r} ({node.op})"
        if id(node) not in self.groups:
            is_plain = all(id(t) in self.shapes or t.is_empty() or not t.outputs for t in node.outputs)
            self.groups[id(node)] = axis_groups(node, self.shapes) if is_plain else []
        held = False
        for group in self.groups[id(node)]:
            here = [(slot, (node.outputs if slot.written else node.inputs)[slot.position]) for slot in group]
            if any(slot.axis == axis and other is tensor for slot, other in here):
                held = True
                if node.op.startswith("Reduce") and len(group) == 1:
                    self.norms[id(node)] = node
                meets = node.op in ("MatMul", "Gemm") and not any(slot.written for slot in group)
                for slot, other in here:
                    if isinstance(other, gs.Constant):
                        self.cut(Cut(node.name, slot.position, slot.axis, meets), other, place)
                    elif id(other) in self.shapes:
                        self.mark(other, slot.axis, place)
        if not held:
            quantized = any(word in node.op for word in ("Quantize", "Integer", "QGemm", "NBits"))
            reason = "is quantized; start from the float32 model" if quantized else MIXES
            raise PassError(f"prune-hidden: {place} {reason}")
        if node.op in ("Reshape", "Expand", "ConstantOfShape") and node.name not in self.stream.sized:
            self.stream.sized.append(node.name)

    def cut(self, cut: Cut, values: gs.Constant, place: str) -> None:
        """Note that a constant loses channels. A table or matrix does wherever it is read, a vector here alone."""
        if values.values.dtype.kind == "f" and values.values.dtype != np.float32:
            dtype = values.values.dtype
            raise PassError(f"prune-hidden: {place} has {dtype} weights; {remedy(self.graph, dtype)}")
        self.cuts[cut] = None
        if sum(size > 1 for size in values.values.shape) > 1:
            self.mark(values, cut.axis, place)
        elif values.values.shape[cut.axis] != self.stream.width:
            raise PassError(f"prune-hidden: {place} reads {values.values.shape[cut.axis]} channels of a constant")

    def check_norm(self, node: gs.Node) -> None:
        """Raise PassError unless what is taken over the channels at `node` goes back to the stream, as in a norm."""
        front = list(node.outputs)
        while front:
            tensor = front.pop()
            readers = self.readers.get(id(tensor), [])
            lost = not readers or is_output(self.graph, tensor) or any(x.op not in ELEMENTWISE for x in readers)
            if lost:
                raise PassError(f"prune-hidden: node {node.name!r} ({node.op}) {MIXES}")
            front += [t for reader in readers for t in reader.outputs if id(t) not in self.axes]

    def check_layers(self, model: Model) -> None:
        """Raise PassError unless every layer reads this stream and adds to it."""
        tensors = model.graph.tensors()
        for layer in model.encoder.layers:
            linears = layer.linears
            ends = {role: linear.source for role, linear in linears.items() if role not in WRITERS}
            ends |= {role: linear.result for role, linear in linears.items() if role in WRITERS}
            for role, name in ends.items():
                if id(tensors[name]) not in self.axes:
                    raise PassError(
                        f"prune-hidden: layer {layer.index}: its {role} layer is not on the stream of layer 0; needed "
                        "one stream from the embeddings to the last layer"
                    )


def _turned_over(model: Model) -> list[str]:
    """The constants [width, vocabulary] that are the word table [vocabulary, width] turned over: a tied decoder's."""
    word = model.encoder.embeddings.word
    if word is None or (table := model.array(word)).shape[1] != model.encoder.hidden:
        return []
    alike = {n: t.values for n, t in model.constants().items() if n != word and t.values.shape == table.T.shape}
    return [name for name, values in alike.items() if np.array_equal(values, table.T)]
