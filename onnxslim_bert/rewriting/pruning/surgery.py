"""Cut chosen heads and neurons out of the graph, and give dense layers new matrices; nothing is decided here."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import nodes_between, producer
from onnxslim_bert.model.attention_form import FUSED_ATTENTION
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.head_cuts import HEAD_COUNTS
from onnxslim_bert.model.head_slices import head_slices
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.write_attention import emit_attention
from onnxslim_bert.rewriting.pruning.least_squares import channels
from onnxslim_bert.rewriting.pruning.sites import Site, counts_heads, reshapes, with_inner


def check_float32(model: Model, others: Mapping[str, str]) -> None:
    """Raise PassError when a matrix of a layer is not float32, or one of the constants `others`.

    others: what they are called in a message, and their names.
    """
    stored = dict(others)
    for layer in model.encoder.layers:
        matrices = ((role, one) for role, linear in layer.linears.items() for one in linear.matrices)
        stored |= {f"the {role} matrix of layer {layer.index}": one.weight for role, one in matrices}
    for what, name in stored.items():
        if (dtype := model.array(name).dtype) != np.float32:
            raise PassError(f"{what} is {dtype}; {remedy(model.graph, dtype)}")


def keep_units(model: Model, site: Site, units: Array) -> None:
    """Keep the units `units` of a site: their columns of what writes them, and their rows of what reads them.

    units [kept]: numbers of heads or neurons, ascending. Afterwards the model answers as it would with the other rows
    zeroed. Raises PassError for heads that cannot be told apart.
    """
    layers = [model.encoder.layers[index] for index in site.layers] if site.kind == "heads" else []
    attentions = [_narrower(model, layer) for layer in layers]
    build = Builder(model.graph, "")
    if site.kind == "neurons":
        for layer in (model.encoder.layers[index] for index in site.layers):
            _narrow_reshapes(model, build, layer, len(units))
    for linear in site.writers(model):
        kept = channels(units, linear.d_out // site.units)
        bias = None if linear.bias is None else model.array(linear.bias)[kept]
        set_dense(model, build, linear, matrix(model, linear)[:, kept], bias)
    for linear in site.readers(model):
        set_dense(model, build, linear, matrix(model, linear)[channels(units, site.unit)], None)
    for narrow in attentions:
        narrow(units)
    model.changed()


def _narrow_reshapes(model: Model, build: Builder, layer: Layer, neurons: int) -> None:
    """Let what is reshaped to the number of neurons that there were be reshaped to `neurons`."""
    for node, before, last in reshapes(model, layer):
        sizes = last.copy()
        sizes.flat[-1] = neurons
        shape = build.constant("shape", sizes)
        node.inputs[1] = build.node("Concat", "shape", [*before, shape], axis=0) if before else shape


def set_reader(model: Model, site: Site, weight: Array, shift: Array) -> None:
    """Give what reads a site the matrix `weight` [channels, d_out], and add `shift` [d_out] to the biases."""
    build = Builder(model.graph, "")
    for linear in site.readers(model):
        bias = None if linear.bias is None else (model.array(linear.bias) + shift).astype("float32")
        set_dense(model, build, linear, weight.astype("float32"), bias)
    model.changed()


def set_dense(model: Model, build: Builder, linear: Linear, weight: Array, bias: Array | None) -> None:
    """Give one dense layer another matrix [d_in, d_out] and, unless it is None, another bias [d_out].

    Other readers of the old constants keep those. Layers that get equal arrays by the same `build` share one constant.
    """
    node = next(node for node in model.graph.nodes if node.name == linear.node)
    _exchange(node, linear.weight, build.constant(linear.weight, weight.T if linear.trans_b else weight))
    reader = producer(model.graph.tensors()[linear.result])
    if bias is not None and linear.bias is not None and reader is not None:
        _exchange(reader, linear.bias, build.constant(linear.bias, bias))


def matrix(model: Model, linear: Linear) -> Array:
    """The matrix [d_in, d_out] of a dense layer."""
    values = model.array(linear.weight)
    return values.T if linear.trans_b else values


def _exchange(node: gs.Node, name: str, new: gs.Constant) -> None:
    for position, tensor in enumerate(node.inputs):
        if tensor.name == name:
            node.inputs[position] = new


def _narrower(model: Model, layer: Layer) -> Callable[[Array], None]:
    """What lets the layer's attention have only the heads that it is given.

    It sets the attribute that holds their number, or writes the attention anew; where its form is not proven, it cuts
    the slices of the other heads. Raises PassError where heads cannot be told apart.
    """
    tensors = model.graph.tensors()
    sources = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
    context = tensors[layer.context]
    build = Builder(model.graph, f"layer.{layer.index}/attention")
    form = layer.form
    if counts_heads(model, layer):
        counts = _head_counts(nodes_between(sources, context))

        def count(units: Array) -> None:
            for node, name in counts:
                node.attrs[name] = len(units)

        return count
    if form is not None:
        mask = tensors[form.mask] if form.mask else None

        def write(units: Array) -> None:
            width, heads = len(units) * layer.head_dim, len(units)
            redirect(model.graph, context, emit_attention(build, "standard", sources, width, heads, form.scale, mask))

        return write
    region = attention_region(model.graph, layer)
    slices, nodes = head_slices(region, layer.groups), list(region.nodes)
    if isinstance(slices, str):
        raise PassError(f"layer {layer.index}: its heads cannot be told apart: {slices}")
    return lambda units: slices.keep(build, nodes, units)


def _head_counts(nodes: Sequence[gs.Node]) -> list[tuple[gs.Node, str]]:
    """The attributes that hold a number of heads, those of nodes in subgraphs included."""
    fused = [node for node in with_inner(nodes) if node.op in FUSED_ATTENTION]
    return [(node, name) for node in fused for name in HEAD_COUNTS if name in node.attrs]
