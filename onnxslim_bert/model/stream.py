"""The residual stream between two layers, through which all goes that later layers know of earlier ones."""

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, nodes_between, producer
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.tokenwise import is_tokenwise


def stream_behind(
    graph: gs.Graph, layers: Sequence[Layer], index: int, sources: Sequence[gs.Tensor], targets: Sequence[gs.Tensor]
) -> gs.Tensor | str:
    """The tensor [batch, seq, hidden] through which `targets` know of layer `index` and those before it.

    sources: what the nodes behind it may read besides, inputs and masks. Returns, in words, what they read past it
    where there is no such tensor.
    """
    before = [linear for layer in layers[: index + 1] for linear in layer.linears.values()]
    earlier = {matrix.node for linear in before for matrix in linear.matrices}
    tensor = graph.tensors()[layers[index + 1].key.source]
    while True:
        regions = [nodes_between([tensor, *sources], target) for target in targets]
        beside = next((node for region in regions for node in region if node.name in earlier), None)
        if beside is None:
            return tensor
        node = producer(tensor)
        if node is None or not is_tokenwise(node) or constant(node.inputs[0]) is not None:
            return f"layers behind {index} read node {beside.name!r} ({beside.op}) past the stream"
        tensor = node.inputs[0]
