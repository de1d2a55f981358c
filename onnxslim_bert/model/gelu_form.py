"""Recognise the GELU activation spelled in elementary operators, by running it."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import MICROSOFT, grow, nodes_between, opsets_of, producer, run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.write_attention import Style

ELEMENTARY = frozenset(["Mul", "Div", "Add", "Pow", "Erf", "Tanh", "Sigmoid", "Cast"])
ANCHORS = ("Erf", "Tanh")
FARTHEST = 8  # nodes from the anchor up to the activation's input

GeluKind = Literal["erf", "tanh"]


@dataclass(frozen=True)
class GeluForm:
    """A GELU found in a graph: target = gelu(source), exact ("erf") or by its tanh approximation."""

    source: gs.Tensor
    target: gs.Tensor
    kind: GeluKind


def find_gelus(graph: gs.Graph) -> list[GeluForm]:
    """Every GELU in elementary operators (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415)."""
    forms = [_gelu_at(graph, node) for node in graph.nodes if node.op in ANCHORS]
    return [form for form in forms if form is not None]


def _gelu_at(graph: gs.Graph, anchor: gs.Node) -> GeluForm | None:
    probe = np.linspace(-8, 8, 257, dtype=np.float32)
    for source in _above(anchor):
        region = grow(source, ELEMENTARY, 1)
        if not any(node is anchor for node in region):
            continue
        for node in region:
            if node.op != "Mul":
                continue
            try:
                actual = run(
                    nodes_between([source], node.outputs[0]), {source.name: probe}, node.outputs[0], opsets_of(graph)
                )
            except ValueError:
                continue
            kinds: tuple[GeluKind, ...] = ("erf", "tanh")
            for kind in kinds:
                if np.allclose(actual, gelu(probe, kind), atol=1e-5):
                    return GeluForm(source, node.outputs[0], kind)
    return None


def _above(anchor: gs.Node) -> list[gs.Tensor]:
    """Tensors from which the anchor's input may come, nearest first."""
    found, front = list[gs.Tensor](), [anchor.inputs[0]]
    for _ in range(FARTHEST):
        front = [tensor for tensor in front if not isinstance(tensor, gs.Constant)]
        found.extend(front)
        above = [node for tensor in front if (node := producer(tensor)) is not None and node.op in ELEMENTARY]
        front = [source for node in above for source in node.inputs]
    return found


def gelu(x: Array, kind: GeluKind) -> Array:
    """GELU of each value of x, of any shape, in float64 (Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415).

    kind: "erf" is x Phi(x), with the normal distribution's Phi; "tanh" is the paper's approximation.
    """
    x = x.astype(np.float64)
    if kind == "tanh":
        inner: Array = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = np.vectorize(math.erf)(x / math.sqrt(2))
    value: Array = 0.5 * x * (1 + inner)
    return value


def spell_gelus(graph: gs.Graph) -> int:
    """Write the GELUs of com.microsoft in elementary operators; returns how many were rewritten."""
    fused = [node for node in graph.nodes if (node.domain or "") == MICROSOFT and node.op in ("Gelu", "FastGelu")]
    is_half = any(isinstance(t, gs.Constant) and t.values.dtype == np.float16 for t in graph.tensors().values())
    dtype = np.float16 if is_half and fused else np.float32
    for node in fused:
        build, x = Builder(graph, node.outputs[0].name), node.inputs[0]

        def constant(name: str, value: float, build: Builder = build) -> gs.Constant:
            return build.constant(name, np.array(value, dtype))

        if node.op == "Gelu":
            bent = build.node("Erf", "erf", [build.node("Div", "scaled", [x, constant("root", math.sqrt(2))])])
        else:
            cube = build.node("Mul", "cube", [x, build.node("Mul", "square", [x, x])])
            inner = build.node("Add", "sum", [x, build.node("Mul", "small", [cube, constant("cubic", 0.044715)])])
            scaled = build.node("Mul", "scaled", [inner, constant("root", math.sqrt(2 / math.pi))])
            bent = build.node("Tanh", "tanh", [scaled])
        share = build.node("Add", "share", [bent, constant("one", 1.0)])
        half = build.node("Mul", "half", [x, constant("half/share", 0.5)])
        redirect(graph, node.outputs[0], build.node("Mul", "product", [half, share]))
    return len(fused)


def fuse_gelus(model: Model, style: Style) -> int:
    """Write each GELU as one node; returns how many were rewritten.

    ONNX has such a node from opset 20 on. Below, style "contrib" takes ONNX Runtime's own, and style "standard" spells
    out those that there are, in elementary operators.
    """
    has_gelu = model.graph.opset >= 20
    if style == "standard":
        spelled = spell_gelus(model.graph)
        model.changed()
        if not has_gelu:
            return spelled
    build = Builder(model.graph, "")
    forms = find_gelus(model.graph)
    for form in forms:
        name = f"{form.target.name}/gelu"
        if has_gelu:
            kind = "none" if form.kind == "erf" else "tanh"
            result = build.node("Gelu", name, [form.source], approximate=kind)
        else:
            result = build.node("Gelu" if form.kind == "erf" else "FastGelu", name, [form.source], MICROSOFT)
        redirect(model.graph, form.target, result)
    model.changed()
    return len(forms)
