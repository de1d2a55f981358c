"""Recognise layer normalization spelled in elementary operators, by running it."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import constant, grow, nodes_between, opsets_of, run

ELEMENTARY = frozenset(["ReduceMean", "Sub", "Pow", "Mul", "Add", "Sqrt", "Div", "Reciprocal", "Cast", "Neg"])
LARGEST_WIDTH = 1 << 16


@dataclass(frozen=True)
class NormForm:
    """A layer norm, found in a graph, over the last axis.

    target = (source - mean) / sqrt(variance + epsilon) * gamma + beta
    """

    source: gs.Tensor
    target: gs.Tensor
    gamma: gs.Constant
    beta: gs.Constant
    epsilon: float


def find_norms(graph: gs.Graph) -> list[NormForm]:
    """Every layer normalization in elementary operators (Ba et al. 2016, https://arxiv.org/abs/1607.06450)."""
    found: dict[int, NormForm] = {}
    for node in graph.nodes:
        if node.op != "ReduceMean" or id(node.inputs[0]) in found:
            continue
        form = _norm_of(graph, node.inputs[0])
        if form is not None:
            found[id(node.inputs[0])] = form
    return list(found.values())


def _norm_of(graph: gs.Graph, source: gs.Tensor) -> NormForm | None:
    for node in grow(source, ELEMENTARY, LARGEST_WIDTH):
        target = node.outputs[0]
        needed = nodes_between([source], target)
        constants = [t for other in needed for t in other.inputs if isinstance(t, gs.Constant)]
        vectors = list({t.name: t for t in constants if t.values.ndim == 1 and t.values.size > 1}.values())
        epsilons = [float(t.values.reshape(())) for t in constants if t.values.size == 1 and 0 < _float(t) < 1e-2]
        if node.op not in ("Add", "Sub") or len(vectors) != 2 or len(epsilons) != 1:
            continue
        width, dtype = vectors[0].values.size, vectors[0].values.dtype
        probe = np.random.default_rng(0).standard_normal((5, width)).astype(dtype)
        probe = probe * np.array([1, 30, 1e-3, 1e-6, 1], dtype)[:, None] + np.array([0, 5, 0, 0, -2], dtype)[:, None]
        try:
            actual = run(needed, {source.name: probe}, target, opsets_of(graph))
        except ValueError:
            continue
        for gamma, beta in (vectors, vectors[::-1]):
            expected = layer_norm(probe, gamma.values, beta.values, epsilons[0])
            if np.allclose(actual, expected, rtol=1e-3, atol=1e-3):
                return NormForm(source, target, gamma, beta, epsilons[0])
    return None


def layer_norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Layer normalization over the last axis, computed in float64 (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    x [..., width]; gamma, beta [width]; epsilon: added to the variance -> [..., width]
    """
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    normal: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return normal * gamma + beta


def _float(tensor: gs.Constant) -> float:
    values = constant(tensor)
    return float(values.reshape(())) if values is not None and values.dtype.kind == "f" else 0.0
