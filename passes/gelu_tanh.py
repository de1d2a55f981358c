"""GELU by tanh, in elementary operators."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.graph.probe import float_type
from onnxslim_bert.model.gelu_form import GeluForm, find_gelus
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.shapes import renew_shapes
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.wording import plural

PUBLISHED = (math.sqrt(2 / math.pi), 0.044715 * math.sqrt(2 / math.pi))
FITTED = (7.97507884e-1, 3.70056461e-2, -3.51516787e-4)  # of least largest error over all x (minimax)
COEFFICIENTS = {3: PUBLISHED, 5: FITTED}
TURN = 20.0  # x² beyond which the fitted polynomial would turn; tanh is 1 there


@dataclass(frozen=True)
class GeluTanh(Pass):
    """Write GELU as x (0.5 + 0.5 tanh(p(x))) with an odd polynomial p: Mul, Add, Min and Tanh are all it needs.

    NNAPI has neither Erf nor Gelu.

    degree: the degree of p. With 3 it is the published approximation, off by at most 4.8e-4 (Hendrycks and Gimpel 2016,
        section 4, https://arxiv.org/abs/1606.08415); with 5 it is fitted to GELU, off by at most 2.6e-5, and takes
        three more operators. A GELU that the model computes by tanh already is written with 3, exactly.
    """

    name: ClassVar[str] = "gelu-tanh"
    degree: Literal[3, 5] = 5

    def apply(self, model: Model, ctx: Context) -> Change:
        forms = [form for form in find_gelus(model.graph) if form.kind == "erf"]
        forms += [_fused(node) for node in model.graph.nodes if node.op in ("Gelu", "FastGelu")]
        if not forms:
            return Change(0, "no GELU is left that is not by tanh already")
        for form in forms:
            build = Builder(model.graph, form.target.name)
            degree = self.degree if form.kind == "erf" else 3
            redirect(model.graph, form.target, emit_gelu(build, form.source, COEFFICIENTS[degree]))
        model.changed()
        renew_shapes(model)
        return Change(len(forms), f"{plural(len(forms), 'activation')} by tanh")


def _fused(node: gs.Node) -> GeluForm:
    by_tanh = node.op == "FastGelu" or node.attrs.get("approximate", "none") == "tanh"
    return GeluForm(node.inputs[0], node.outputs[0], "tanh" if by_tanh else "erf")


def emit_gelu(build: Builder, x: gs.Tensor, coefficients: tuple[float, ...]) -> gs.Tensor:
    """x (0.5 + 0.5 tanh(p(x))), p(x) = x (c0 + c1 x² + c2 x⁴), as many terms as there are `coefficients`."""

    dtype = float_type(x)

    def number(name: str, value: float) -> gs.Tensor:
        return build.constant(name, np.array(value, dtype))

    square = build.node("Mul", "square", [x, x])
    if coefficients[-1] < 0:
        square = build.node("Min", "bounded", [square, number("turn", TURN)])
    slope = number("last", coefficients[-1])
    for i, coefficient in enumerate(reversed(coefficients[:-1])):
        term = build.node("Mul", f"term{i}", [square, slope])
        slope = build.node("Add", f"slope{i}", [term, number(f"c{i}", coefficient)])
    tanh = build.node("Tanh", "tanh", [build.node("Mul", "inner", [x, slope])])
    half = number("half", 0.5)
    share = build.node("Add", "share", [build.node("Mul", "halved", [tanh, half]), half])
    return build.node("Mul", "gelu", [x, share])
