"""What an encoder is, in a few numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxslim_bert.graph.probe import nodes_between
from onnxslim_bert.inspection.norm_style import NormStyle, norm_style
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.narrow_weights import Narrow
from onnxslim_bert.model.onnx_model import Model

ACTIVATIONS = {
    "Gelu": "gelu",
    "FastGelu": "tanh gelu",
    "QuickGelu": "quick gelu",
    "Relu": "relu",
    "Tanh": "tanh",
}


@dataclass(frozen=True)
class Table:
    """An embedding table, [rows, width]."""

    rows: int
    width: int
    dtype: str


@dataclass(frozen=True)
class EncoderFacts:
    """Sizes and properties of an encoder; tuples have a value for each layer where layers may differ.

    heads, head_width, feed_forward: of each layer; feed_forward is 0 where a layer has none.
    norm, activation: None when not recognised. mask: the input that says which tokens are real.
    proven: for each layer whether its attention is proven to be softmax(scale * q @ k.T + mask) @ v.
    first_token: the last layer computes no other.
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
        tables={role: Table(shape[0], shape[1], dtype) for role, (shape, dtype) in tables.items()},
        encoder_dtypes=_dtypes(types, dense),
        head_dtypes=_dtypes(types, encoder.head),
    )


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
