"""Where an encoder can be made narrower: the heads of an attention, the neurons of a feed-forward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxslim_bert.encoder import Layer
from onnxslim_bert.errors import PassError
from onnxslim_bert.linear import Linear
from onnxslim_bert.model import Model

Kind = Literal["heads", "neurons"]
READERS: dict[Kind, str] = {"heads": "output", "neurons": "down"}
WRITERS: dict[Kind, tuple[str, ...]] = {"heads": ("query", "key", "value"), "neurons": ("up",)}


@dataclass(frozen=True)
class Site:
    """Units that can go: heads or neurons of one layer, or of several that share their matrices.

    layers: indices. units: how many there are. unit: channels of one, which are rows of the matrix that reads them.
    """

    kind: Kind
    layers: tuple[int, ...]
    units: int
    unit: int

    def readers(self, model: Model) -> list[Linear]:
        """The dense layers that read the units: output, or down."""
        return [self._role(layer, READERS[self.kind]) for layer in self._layers(model)]

    def writers(self, model: Model) -> list[Linear]:
        """The dense layers that write the units: query, key and value, or up."""
        return [self._role(layer, role) for layer in self._layers(model) for role in WRITERS[self.kind]]

    def _layers(self, model: Model) -> list[Layer]:
        return [model.encoder.layers[index] for index in self.layers]

    def _role(self, layer: Layer, role: str) -> Linear:
        return layer.linears[role]


def find_sites(model: Model, kind: Kind) -> list[Site]:
    """Every site of one kind, in the order of their first layers.

    Raises PassError when a layer cannot be pruned: quantized, without a plain feed-forward, or sharing some matrices
    with layers of another width.
    """
    layers = model.encoder.layers
    groups: list[list[int]] = []
    for layer in layers:
        _check(model, layer, kind)
        names = _matrices(layer, kind)
        joined = [group for group in groups if any(names & _matrices(layers[i], kind) for i in group)]
        groups = [group for group in groups if group not in joined] + [[*sum(joined, []), layer.index]]
    sites = [_site([layers[i] for i in sorted(group)], kind) for group in groups]
    return sorted(sites, key=lambda site: site.layers)


def _site(layers: Sequence[Layer], kind: Kind) -> Site:
    sizes = {(layer.heads, layer.head_dim) if kind == "heads" else (_neurons(layer), 1) for layer in layers}
    indices = tuple(layer.index for layer in layers)
    if len(sizes) > 1:
        raise PassError(f"layers {', '.join(map(str, indices))} share matrices but not their number of {kind}")
    units, unit = sizes.pop()
    return Site(kind, indices, units, unit)


def _check(model: Model, layer: Layer, kind: Kind) -> None:
    roles = (*WRITERS[kind], READERS[kind])
    missing = [role for role in roles if role not in layer.linears]
    if missing:
        raise PassError(f"layer {layer.index} has no plain feed-forward: nothing to prune")
    for role in roles:
        linear = layer.linears[role]
        dtype = model.constants()[linear.weight].values.dtype
        if dtype != np.float32:
            raise PassError(f"the weight at node {linear.node!r} is {dtype}; prune the float32 model, then quantize")
    if kind == "heads" and len({layer.linears[role].d_out for role in WRITERS[kind]}) > 1:
        raise PassError(f"layer {layer.index}: heads of value are not as wide as those of query")


def _matrices(layer: Layer, kind: Kind) -> set[str]:
    return {layer.linears[role].weight for role in (*WRITERS[kind], READERS[kind])}


def _neurons(layer: Layer) -> int:
    return layer.linears["up"].d_out
