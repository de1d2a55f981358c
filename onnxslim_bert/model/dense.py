"""The dense layers of an encoder that are still float, and which of them need the same scales."""

from collections.abc import Sequence

import numpy as np

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model

NARROWEST = 32  # outputs of a task head from which int8 saves anything


def dense_layers(model: Model) -> list[Linear]:
    """The dense layers that are still float, in execution order; the few outputs of a classifier stay float."""
    encoder = model.encoder
    projection = [encoder.embeddings.projection] if encoder.embeddings.projection else []
    head = [linear for linear in encoder.head if linear.d_out >= NARROWEST]
    layers = [linear for layer in encoder.layers for linear in layer.linears.values()]
    linears = list(dict.fromkeys(matrix for linear in (*projection, *layers, *head) for matrix in linear.matrices))
    if all(linear.quantized for linear in linears):
        raise PassError("the encoder's dense layers are quantized already; start from the float model")
    constants = model.constants()
    found = [linear for linear in linears if not linear.quantized]
    for linear in found:
        if (dtype := constants[linear.weight].values.dtype) != np.float32:
            raise PassError(f"the weight at node {linear.node!r} is {dtype}; start from the float32 model")
    return found


def group_sites(linears: Sequence[Linear]) -> list[list[list[Linear]]]:
    """Sites, each the layers that read one tensor, in groups that share a weight and so need the same scales."""
    sites: dict[str, list[Linear]] = {}
    for linear in linears:
        sites.setdefault(linear.source, []).append(linear)
    groups: list[list[list[Linear]]] = []
    for site in sites.values():
        names = {linear.weight for linear in site}
        sharing = [g for g in groups if names & {linear.weight for other in g for linear in other}]
        merged = [other for g in sharing for other in g] + [site]
        groups = [g for g in groups if not any(g is s for s in sharing)] + [merged]
    return groups
