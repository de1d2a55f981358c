"""Where an encoder can be made narrower: the heads of an attention, the neurons of a feed-forward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant, nodes_between, producer
from onnxslim_bert.model.attention_form import FUSED_ATTENTION
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.head_slices import head_slices
from onnxslim_bert.model.layer_sets import sharing_groups
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.marks import UNPADDED
from onnxslim_bert.rewriting.pruning.channel_axes import NORMS

UnitKind = Literal["heads", "neurons"]
READERS: dict[UnitKind, str] = {"heads": "output", "neurons": "down"}
WRITERS: dict[UnitKind, tuple[str, ...]] = {"heads": ("query", "key", "value"), "neurons": ("gate", "up")}
MIXING = NORMS | {"Softmax", "LogSoftmax", "LpNormalization", "CumSum", "ArgMax", "TopK"}  # read all neurons of a token
FOR_EACH_HEAD = 5  # MultiHeadAttention's inputs from here on have an axis of heads


@dataclass(frozen=True)
class Site:
    """The heads or the neurons of one layer, or of several layers that share their matrices; units that can go.

    layers: their numbers, from 0. units: how many heads or neurons there are; heads that share a key are one unit.
    unit: channels of one, which are rows of the matrix that reads them. Examples: 12 heads of 64 channels have
    units=12, unit=64; with four keys for them, units=4, unit=192; neurons have unit=1.
    """

    kind: UnitKind
    layers: tuple[int, ...]
    units: int
    unit: int

    def __str__(self) -> str:
        return f"layer {', '.join(map(str, self.layers))}"

    def readers(self, model: Model) -> list[Linear]:
        """The dense layers that read the units: output, or down."""
        return [layer.linears[READERS[self.kind]] for layer in self._layers(model)]

    def writers(self, model: Model) -> list[Linear]:
        """The dense layers that write the units: query, key and value, or up and, where there is one, its gate."""
        return [layer.linears[role] for layer in self._layers(model) for role in writing(layer, self.kind)]

    def _layers(self, model: Model) -> list[Layer]:
        return [model.encoder.layers[index] for index in self.layers]


def reshapes(model: Model, layer: Layer) -> list[tuple[gs.Node, list[gs.Tensor], Array]]:
    """The Reshapes to a fixed number of neurons in a layer's feed-forward, with their shapes.

    A shape is a constant that ends in the number, behind what a Concat puts before it, if anything.
    """
    found, neurons = [], layer.linears[READERS["neurons"]].d_in
    for node in nodes_between(*_ends(model, layer, "neurons")):
        if node.op == "Reshape":
            maker = producer(node.inputs[1])
            sizes = list(maker.inputs) if maker is not None and maker.op == "Concat" else [node.inputs[1]]
            last = constant(sizes[-1])
            if last is not None and last.size and last.flat[-1] == neurons:
                found.append((node, sizes[:-1], last))
    return found


def writing(layer: Layer, kind: UnitKind) -> tuple[str, ...]:
    """The roles of the dense layers that write the units of one layer."""
    return tuple(role for role in WRITERS[kind] if role != "gate" or layer.gate is not None)


def constants(model: Model, sites: Sequence[Site]) -> set[str]:
    """Names of the matrices and biases that change when these sites are narrowed."""
    dense = [linear for site in sites for linear in (*site.writers(model), *site.readers(model))]
    return {name for linear in dense for name in (linear.weight, linear.bias) if name is not None}


def downwards(sites: Sequence[Site]) -> list[int]:
    """The order in which a text passes sites: heads before neurons, layer by layer."""
    return sorted(range(len(sites)), key=lambda i: (sites[i].layers, sites[i].kind))


def find_sites(model: Model, kind: UnitKind) -> list[Site]:
    """Every site of one kind, in the order of their first layers.

    Raises PassError when a layer cannot be pruned: quantized, half precision or factored, without a plain feed-forward,
    sharing matrices with a layer of another width, or when something else depends on single units.
    """
    layers = model.encoder.layers
    for layer in layers:
        _check(model, layer, kind)
    groups = sharing_groups([_matrices(layer, kind) for layer in layers])
    return [_site([layers[i] for i in group], kind) for group in groups]


def _site(layers: Sequence[Layer], kind: UnitKind) -> Site:
    sizes = {
        (layer.groups, layer.output.d_in // layer.groups) if kind == "heads" else (_neurons(layer), 1)
        for layer in layers
    }
    indices = tuple(layer.index for layer in layers)
    if len(sizes) > 1:
        raise PassError(f"layers {', '.join(map(str, indices))} share matrices but not their number of {kind}")
    units, unit = sizes.pop()
    return Site(kind, indices, units, unit)


def check_plain(model: Model, layer: Layer, kind: UnitKind) -> None:
    """Raise PassError unless the matrices around the units of `layer` are there, whole and float32."""
    roles = (*writing(layer, kind), READERS[kind])
    missing = [role for role in roles if role not in layer.linears]
    if missing:
        raise PassError(f"layer {layer.index} has no plain feed-forward: nothing to prune")
    for role in roles:
        linear = layer.linears[role]
        if linear.factors:
            raise PassError(f"the weight at node {linear.node!r} is stored as two factors; prune first, then factor")
        dtype = model.array(linear.weight).dtype
        if dtype != np.float32:
            raise PassError(f"the weight at node {linear.node!r} is {dtype}; {remedy(model.graph, dtype)}")


def _check(model: Model, layer: Layer, kind: UnitKind) -> None:
    check_plain(model, layer, kind)
    if kind == "heads":
        _check_heads(model, layer)
    if (node := _stranger(model, layer, kind)) is not None:
        place = f"layer {layer.index}: node {node.name!r} ({node.op})"
        raise PassError(f"{place} depends on single {kind} too; prune before what wrote it")


def _check_heads(model: Model, layer: Layer) -> None:
    """Raise PassError unless a unit is the same share of query, key, value and of what `output` reads."""
    if UNPADDED.is_in(model.graph):
        raise PassError(
            f"layer {layer.index}: the model is unpadded, and tokens are packed at the width of all heads; "
            "prune heads before `unpad`"
        )
    query, key, value = (layer.linears[role].d_out for role in WRITERS["heads"])
    if any(width % layer.groups for width in (query, key, value)) or layer.heads % layer.groups:
        raise PassError(f"layer {layer.index}: query, key and value are {query}, {key}, {value} wide: heads differ")
    if layer.output.d_in % layer.groups or (key == value and layer.output.d_in != query):
        beside = f"{layer.output.d_in} channels, and its heads have {query}"
        raise PassError(f"layer {layer.index}: output reads {beside}: a branch beside attention, so no head can go")
    if layer.form is None and not counts_heads(model, layer):
        slices = head_slices(attention_region(model.graph, layer), layer.groups)
        if isinstance(slices, str):
            reason = layer.reason if slices in layer.reason else f"{layer.reason}; {slices}"
            raise PassError(f"layer {layer.index}: its attention is not proven ({reason}), so its heads cannot go")


def counts_heads(model: Model, layer: Layer) -> bool:
    """Whether the attention is a fused node, where the number of heads can be set, without an input by head."""
    tensors = model.graph.tensors()
    sources = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
    nodes = with_inner(nodes_between(sources, tensors[layer.context]))
    fused = [node for node in nodes if node.op in FUSED_ATTENTION]
    return (
        bool(fused)
        and layer.groups == layer.heads
        and all(tensor.is_empty() for node in fused for tensor in node.inputs[FOR_EACH_HEAD:])
    )


def _stranger(model: Model, layer: Layer, kind: UnitKind) -> gs.Node | None:
    """A node that would break with fewer units, or None.

    Either a node outside the layer's attention or feed-forward that reads the units, or one inside that has a constant
    with a number for each channel, or, between neurons, one whose results depend on how many there are.
    """
    (sources, target), reader = _ends(model, layer, kind), layer.linears[READERS[kind]]
    inside = {id(node) for node in with_inner(nodes_between(sources, target))}
    front, seen = [*sources, target], set[int]()
    while front:
        for node in front.pop().outputs:
            if id(node) in seen or node.name == reader.node or node.op == "Shape":
                continue
            seen.add(id(node))
            values = [values for tensor in node.inputs if (values := constant(tensor)) is not None]
            if id(node) not in inside or any(v.dtype.kind == "f" and v.shape[-1:] == (reader.d_in,) for v in values):
                return node
            if kind == "neurons" and (node.op.startswith("Reduce") or node.op in MIXING):
                return node
            front.extend(node.outputs)
    return None


def _ends(model: Model, layer: Layer, kind: UnitKind) -> tuple[list[gs.Tensor], gs.Tensor]:
    """What the dense layers give that write the units, and what the one takes that reads them."""
    tensors = model.graph.tensors()
    sources = [tensors[layer.linears[role].result] for role in writing(layer, kind)]
    return sources, tensors[layer.linears[READERS[kind]].source]


def with_inner(nodes: Sequence[gs.Node]) -> list[gs.Node]:
    """These nodes and those of their subgraphs."""
    inner = [graph for node in nodes for graph in node.attrs.values() if isinstance(graph, gs.Graph)]
    return [*nodes, *(other for graph in inner for other in with_inner(graph.nodes))]


def _matrices(layer: Layer, kind: UnitKind) -> set[str]:
    return {layer.linears[role].weight for role in (*writing(layer, kind), READERS[kind])}


def _neurons(layer: Layer) -> int:
    return layer.linears["up"].d_out
