"""The nodes of one attention, from query, key and value to what its output reads."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.region import Region
from onnxslim_bert.model.token_masks import TokenMask, masks


def attention_region(graph: gs.Graph, layer: Layer) -> Region:
    """The nodes of the attention of `layer`, from query, key and value to what its output reads."""
    roles = (layer.query, layer.key, layer.value)
    return region_between(graph, graph.tensors(), roles, layer.output, masks(graph), layer.first_token)


def region_between(
    graph: gs.Graph,
    tensors: Mapping[str, gs.Tensor],
    roles: Sequence[Linear],
    output: Linear,
    hiding: Sequence[TokenMask],
    first_token: bool,
) -> Region:
    """The nodes from `roles` (query, key, value) to what `output` reads, to be run alone.

    tensors: all of the graph, by name. hiding: the known masks.
    """
    query, key, value = roles
    return Region(
        graph,
        [tensors[linear.result] for linear in roles],
        tensors[key.source],
        tensors[output.source],
        [query.d_out, key.d_out, value.d_out, key.d_in],
        hiding,
        first_token,
        half=tensors[query.weight].values.dtype == np.float16,
    )
