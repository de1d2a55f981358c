"""What an encoder is, in a few numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.graph.probe import constant, nodes_between
from onnxslim_bert.inspection.norm_style import NormStyle, norm_style
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.narrow_weights import Narrow
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.pairs.parts import STATES, kept_apart

ACTIVATIONS = {
    "Gelu": "gelu",
    "FastGelu": "tanh gelu",
    "QuickGelu": "quick gelu",
    "Relu": "relu",
    "Tanh": "tanh",
}


@dataclass(frozen=True)
class Table:
    """An embedding table, [rows, width], as it is stored.

    bits: of an entry that is looked up, where rows are packed bits or codes of entries. Example: 384 entries of 4 bits
    are 192 wide.
    """

    rows: int
    width: int
    dtype: str
    bits: float | None = None


@dataclass(frozen=True)
class EncoderFacts:
    """Sizes and properties of an encoder; tuples have a value for each layer where layers may differ.

    heads, head_width, feed_forward: of each layer; feed_forward is 0 where a layer has none.
    norm, activation: None when not recognised. mask: the input that says which tokens are real.
    proven: for each layer whether its attention is proven to be softmax(scale * q @ k.T + mask) @ v.
    first_token: the last layer computes no other. apart: layers, from the first, that read the two texts of a pair
    apart (`decouple`). part: what a file of `split` is, "passage" or "joint"; "" for any other.
    encoder_dtypes, head_dtypes: number of dense layers by the type of their weights.
    """

    layers: int
    hidden: int
    heads: tuple[int, ...]
    head_width: tuple[int, ...]
    feed_forward: tuple[int, ...]
    norm: NormStyle | None
    activation: str | None
    mask: str | None
    proven: tuple[bool, ...]
    first_token: bool
    apart: int
    part: str
    tables: dict[str, Table]
    encoder_dtypes: dict[str, int]
    head_dtypes: dict[str, int]


def encoder_facts(fused: Model, narrow: Iterable[Narrow] = ()) -> EncoderFacts:
    """The facts of a fused model's encoder. narrow: weights that its file stores in fewer bits, and in another type."""
    encoder, constants = fused.encoder, fused.constants()
    layers = encoder.layers
    projection = [encoder.embeddings.projection] if encoder.embeddings.projection else []
    dense = [*projection, *(linear for layer in layers for linear in layer.linears.values())]
    types = {name: str(tensor.values.dtype) for name, tensor in constants.items()}
    types |= {weight.name: weight.dtype for weight in narrow}
    bits = {} if (packed := packed_words(fused)) is None else {"word": packed.bits}
    tables = {role: (constants[name].values.shape, types[name]) for role, name in encoder.embeddings.tables.items()}
    return EncoderFacts(
        layers=len(layers),
        hidden=encoder.hidden,
        heads=tuple(layer.heads for layer in layers),
        head_width=tuple(layer.head_dim for layer in layers),
        feed_forward=tuple(layer.up.d_out if layer.up else 0 for layer in layers),
        norm=norm_style(fused),
        activation=_activation(fused, layers[0]),
        mask=encoder.mask,
        proven=tuple(layer.form is not None for layer in layers),
        first_token=layers[-1].first_token,
        apart=kept_apart(fused),
        part=_part(fused),
        tables={role: Table(shape[0], shape[1], dtype, bits.get(role)) for role, (shape, dtype) in tables.items()},
        encoder_dtypes=_dtypes(types, dense),
        head_dtypes=_dtypes(types, encoder.head),
    )


@dataclass(frozen=True)
class PackedWords:
    """A word table in packed bits or codes.

    planes: the constants that hold them. bits: of an entry. entries: in all.
    """

    planes: tuple[str, ...]
    bits: float
    entries: int


def packed_words(model: Model) -> PackedWords | None:
    """The word table of `model`, where its rows are bytes that hold several entries; None where each is a byte."""
    embeddings, tensors = model.encoder.embeddings, model.graph.tensors()
    if embeddings.word is None or tensors[embeddings.word].values.dtype != np.uint8:
        return None
    ids = {id(node.inputs[1]) for node in tensors[embeddings.word].outputs if node.op == "Gather"}
    gathers = [node for node in model.graph.nodes if node.op == "Gather" and id(node.inputs[1]) in ids]
    planes = {node.inputs[0].name: values for node in gathers if (values := constant(node.inputs[0])) is not None}
    planes = {name: values for name, values in planes.items() if values.dtype == np.uint8}
    width = embeddings.projection.d_in if embeddings.projection else model.encoder.hidden
    rows, stored = len(tensors[embeddings.word].values), sum(values.shape[1] for values in planes.values())
    return PackedWords(tuple(planes), 8 * stored / width, rows * width) if 0 < stored < width else None


def _part(model: Model) -> str:
    """Which file of `split` the model is, by what the two hand over."""
    given, handed = (
        any(tensor.name == STATES for tensor in ports) for ports in (model.graph.inputs, model.graph.outputs)
    )
    return "joint" if given else "passage" if handed else ""


def _activation(fused: Model, layer: Layer) -> str | None:
    if layer.up is None or layer.down is None:
        return None
    tensors = fused.graph.tensors()
    written = [tensors[linear.result] for linear in (layer.gate, layer.up) if linear is not None]
    nodes = nodes_between(written, tensors[layer.down.source])
    names = {ACTIVATIONS[node.op] for node in nodes if node.op in ACTIVATIONS}
    if any(node.attrs.get("approximate") == "tanh" for node in nodes):
        return "tanh gelu"
    return names.pop() if len(names) == 1 else None


def _dtypes(types: Mapping[str, str], linears: Sequence[Linear]) -> dict[str, int]:
    return dict(Counter(types[linear.weight] for linear in linears))
