"""Which part of a model each node belongs to."""

from typing import Literal

from onnxslim_bert.graph.probe import nodes_between
from onnxslim_bert.inspection.norm_style import pre_norms
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.model.linear import is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model

PartName = Literal["embeddings", "attention", "feed-forward", "head", "other"]
PARTS: tuple[PartName, ...] = ("embeddings", "attention", "feed-forward", "head", "other")

# Stages of the computation: 2 * i + 1 is the attention of layer i, 2 * i + 2 its feed-forward; the head comes last.
NOWHERE, EMBEDDINGS = -1, 0


def part_of_nodes(model: Model) -> dict[int, PartName]:
    """The part of a fused model that each node belongs to: {id of the node: part}.

    A dense layer belongs to the part of its role. Any other node belongs to the latest part whose results it reads: the
    Add behind the attention's output matrix is attention. Two kinds belong to the dense layer that they serve instead:
    a norm in front of it (pre-norm), and what quantizes its inputs or restores its weights.
    """
    encoder, tensors = model.encoder, model.graph.tensors()
    stages = _stages(encoder)
    above = {id(node) for node in nodes_between([], tensors[encoder.layers[0].key.source])}
    norms = pre_norms(model)
    found: dict[int, int] = {}
    reached: dict[int, int] = {}
    for node in model.graph.nodes:
        stage = max((reached.get(id(tensor), NOWHERE) for tensor in node.inputs), default=NOWHERE)
        if node.name in stages:
            stage = stages[node.name]
        elif id(node) in norms:
            stage = stages[norms[id(node)]]
        elif id(node) in above:
            stage = EMBEDDINGS
        found[id(node)] = stage
        reached |= {id(tensor): stage for tensor in node.outputs}
    for node in filter(is_linear, model.graph.nodes):
        linear = read_linear(node)
        for helper in nodes_between([tensors[linear.source]], tensors[linear.result]):
            found[id(helper)] = found[id(node)]
    return {node: _part(stage, 2 * len(encoder.layers)) for node, stage in found.items()}


def _stages(encoder: Encoder) -> dict[str, int]:
    """The stage of each dense layer by its node."""
    projection = encoder.embeddings.projection
    found = {projection.node: EMBEDDINGS} if projection else {}
    for layer in encoder.layers:
        for role, linear in layer.linears.items():
            stage = 2 * layer.index + (2 if role in ("gate", "up", "down") else 1)
            found |= {matrix.node: stage for matrix in linear.matrices}
    return found | {linear.node: 2 * len(encoder.layers) + 1 for linear in encoder.head}


def _part(stage: int, last: int) -> PartName:
    if stage == NOWHERE:
        return "other"
    if stage == EMBEDDINGS:
        return "embeddings"
    if stage > last:
        return "head"
    return "attention" if stage % 2 else "feed-forward"
