"""Attention with something added to its scores: softmax(scale q kᵀ + B) v, B independent of query, key and value.

Relative positions, ALiBi, windows, causal masks and padding are such B. What adds it is read node by node, so that what
is found holds at every length, however B is made; that the nodes compute the formula is proven by running them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import MICROSOFT, constant, nodes_between, producer
from onnxslim_bert.model.attention_form import Region, attention, is_close
from onnxslim_bert.model.attention_region import attention_region
from onnxslim_bert.model.encoder import Layer

VIEWS = frozenset(["Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze"])
GUARDS = frozenset(["Softmax", "IsNaN", "Where", "MatMul"])  # a guard puts zeros for tokens that see no key


@dataclass(frozen=True)
class BiasedAttention:
    """softmax(scale * q @ k.T + sum of factor * term) @ v for each head.

    terms: each with its factor; together [batch or 1, heads or 1, seq, seq], the first axis left out where rank is 3.
    """

    scale: float
    terms: tuple[tuple[gs.Tensor, float], ...]
    rank: int = 4

    def write(self, build: Builder, roles: Sequence[gs.Tensor], heads: int) -> gs.Tensor:
        """One node for it over `roles` (query, key, value); layers that add the same share the sum of the terms."""
        total: gs.Tensor | None = None
        for term, factor in self.terms:
            number = build.constant("factor", np.array(factor, np.float32))
            added = term if factor == 1 else build.once("Mul", f"{term.name}/times/{factor:.9g}", [term, number])
            total = added if total is None else build.once("Add", f"{total.name}+{added.name}", [total, added])
        assert total is not None
        axes = build.constant("axes", np.zeros(1, np.int64))
        four = build.once("Unsqueeze", f"{total.name}/rows", [total, axes]) if self.rank == 3 else total
        inputs = [*roles, None, None, four]
        return build.node("MultiHeadAttention", "context", inputs, MICROSOFT, num_heads=heads, scale=self.scale)


def biased_attention(graph: gs.Graph, layer: Layer) -> BiasedAttention | None:
    """What the attention of `layer` computes, if it is of this form; else None."""
    region = attention_region(graph, layer)
    if layer.key.d_out != layer.query.d_out or region.stranger is not None or region.half or layer.first_token:
        return None
    softmax = [node for node in region.nodes if node.op == "Softmax"]
    if len(softmax) != 1 or softmax[0].attrs.get("axis", -1) not in (-1, 3):
        return None
    found = _scores(region, softmax[0])
    if found is None or not _is_mixed_plainly(region, softmax[0]):
        return None
    rank = _proven_rank(region, layer.heads, found)
    return replace(found, rank=rank) if rank else None


def _scores(region: Region, softmax: gs.Node) -> BiasedAttention | None:
    """The scale and the terms of the scores, going up from their softmax."""
    moving = region.moving()
    tensor, factor, terms = softmax.inputs[0], 1.0, list[tuple[gs.Tensor, float]]()
    while (node := producer(tensor)) is not None and node.op != "MatMul":
        ours = [t for t in node.inputs if id(t) in moving]
        others = [t for t in node.inputs if id(t) not in moving]
        if len(ours) != 1 or len(others) != 1:
            return None
        if node.op in ("Add", "Sum"):
            terms.append((others[0], factor))
        elif (number := _number(node, ours[0], others[0])) is not None:
            factor *= number
        else:
            return None
        tensor = ours[0]
    if node is None or not terms:
        return None
    for operand, source in zip(node.inputs, region.sources[:2], strict=True):
        number = _view_scale(operand, source)
        if number is None:
            return None
        factor *= number
    return BiasedAttention(factor, tuple(terms))


def _number(node: gs.Node, ours: gs.Tensor, other: gs.Tensor) -> float | None:
    """What `node` multiplies `ours` with, one number; None for any other node."""
    values = constant(other)
    if values is None or values.size != 1:
        return None
    value = float(values.reshape(-1)[0])
    if node.op == "Mul":
        return value
    return 1 / value if node.op == "Div" and node.inputs[0] is ours and value else None


def _view_scale(operand: gs.Tensor, source: gs.Tensor) -> float | None:
    """The number that `operand`, a view of `source`, is multiplied with; None where it is anything else."""
    scale = 1.0
    while operand is not source:
        node = producer(operand)
        if node is None:
            return None
        if node.op not in VIEWS:
            ours, others = node.inputs[0], node.inputs[1:]
            if len(others) == 1 and constant(ours) is not None:
                ours, others = others[0], [ours]
            number = _number(node, ours, others[0]) if len(others) == 1 else None
            if number is None:
                return None
            scale *= number
            operand = ours
        else:
            operand = node.inputs[0]
    return scale


def _is_mixed_plainly(region: Region, softmax: gs.Node) -> bool:
    """Whether views, one product and a guard alone lie behind the probabilities."""
    nodes = nodes_between([softmax.outputs[0], *region.sources], region.target)
    moving = region.moving()
    return all(node.op in VIEWS | GUARDS for node in nodes if any(id(tensor) in moving for tensor in node.outputs))


def _proven_rank(region: Region, heads: int, found: BiasedAttention) -> int:
    """The rank of the terms' sum; 0 unless the nodes give what the formula gives, and one operator takes that sum."""
    rank = 0
    for given in region.probes():
        try:
            actual = region.run_targets(given, [region.target])[0]
            values = _values(region, given, [term for term, _ in found.terms])
        except ValueError:
            return 0
        q, k, v = (given[tensor.name] for tensor in region.sources)
        length = given[region.hidden.name].shape[1]
        bias = np.asarray(sum(factor * term for (_, factor), term in zip(found.terms, values, strict=True)))
        if bias.ndim not in (3, 4) or bias.shape[-2:] != (length, length):
            return 0
        if not is_close(actual, attention(q, k, v, heads, found.scale, True, bias)):
            return 0
        rank = bias.ndim
    return rank


def _values(region: Region, given: dict[str, Array], terms: Sequence[gs.Tensor]) -> list[Array]:
    made = [term for term in terms if constant(term) is None and term.name not in given]
    found = dict(zip([t.name for t in made], region.run_targets(given, made) if made else [], strict=True))
    known = {**given, **found, **{t.name: t.values for t in terms if isinstance(t, gs.Constant)}}
    return [known[term.name] for term in terms]
