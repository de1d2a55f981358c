"""GELU by tanh: as near as it says over the whole line, from whatever form, and no Erf left."""

from collections import Counter

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, apply, every_padding, fixture, prepared
from oracles import assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import opsets_of, run
from onnxslim_bert.model.gelu_form import gelu
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.gelu_tanh import COEFFICIENTS, GeluTanh, emit_gelu

CANONICAL, FUSE, STANDARD, TANH = Canonicalize(), Fuse(), Fuse(style="standard"), GeluTanh()
LARGEST_ERROR = {3: 4.8e-4, 5: 2.6e-5}


def emitted(degree: int, values: np.ndarray) -> np.ndarray:
    """What the emitted nodes give for `values`."""
    x = gs.Variable("x", values.dtype, [values.size])
    graph = gs.Graph([], [x], opset=17)
    result = emit_gelu(Builder(graph, ""), x, COEFFICIENTS[degree])
    graph.toposort()
    return run(graph.nodes, {"x": values}, result, opsets_of(graph))


@pytest.mark.parametrize("degree", [3, 5])
def test_the_error_is_what_the_docstring_says(degree):
    """From one end of what activations reach to far beyond, near zero too."""
    line = np.concatenate([np.linspace(-12, 12, 48001), np.geomspace(1e-6, 1e4, 500), -np.geomspace(1e-6, 1e4, 500)])
    values = line.astype(np.float32)
    worst = np.abs(emitted(degree, values) - gelu(values, "erf")).max()
    assert LARGEST_ERROR[degree] / 1.2 < worst < LARGEST_ERROR[degree]


def test_degree_3_is_the_published_approximation():
    values = np.linspace(-8, 8, 1001, dtype=np.float32)
    np.testing.assert_allclose(emitted(3, values), gelu(values, "tanh"), atol=1e-6)


@pytest.mark.parametrize(("degree", "atol"), [(3, 5e-3), (5, 3e-4)])
@pytest.mark.parametrize("name", SOME)
def test_the_answers_stay_near(name, degree, atol):
    model = prepared(name, CANONICAL, STANDARD, GeluTanh(degree=degree))
    assert_same_outputs(model, Model.load(fixture(name)), every_padding(model), atol=atol)
    assert not {"Erf", "Gelu"} & {node.op for node in model.graph.nodes}


def test_fused_activations_are_taken_apart():
    """Those of com.microsoft too."""
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, TANH)
    ops = Counter(node.op for node in model.graph.nodes)
    assert (ops["Gelu"], ops["Tanh"]) == (0, 3 + 1)  # the pooler has one
    assert_same_outputs(model, Model.load(fixture("bert-ts17-eager")), every_padding(model), atol=3e-4)


def test_what_was_by_tanh_stays_exact():
    before = prepared("bert-dynamo20-sdpa", CANONICAL)
    for node in before.graph.nodes:
        if node.op == "Gelu":
            node.attrs["approximate"] = "tanh"
    model = before.clone()
    assert apply(TANH, model)
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


@pytest.mark.parametrize("degree", [3, 5])
def test_a_second_time_changes_nothing_and_says_so(degree):
    model = prepared("bert-ts17-eager", CANONICAL, GeluTanh(degree=degree))
    before = model.fingerprint()
    change = apply(GeluTanh(degree=degree), model)
    assert (bool(change), change.note) == (False, "no GELU is left that is not by tanh already")
    assert model.fingerprint() == before


def test_another_degree_is_refused():
    with pytest.raises(PassError, match=r"^gelu-tanh: degree=4 is not one of 3, 5$"):
        GeluTanh(degree=4)
