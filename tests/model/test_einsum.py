"""An Einsum of two operands becomes a matrix product, whichever letters it has; another stays."""

from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from oracles import assert_same_outputs
from random_encoders import HEADS, encoder, random_kind

from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.einsum import spell_einsums
from onnxslim_bert.model.linear import is_linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.rewriting.contract import Context

SIZES = dict(zip("bhijdnsm", (2, 3, 5, 7, 4, 6, 11, 13), strict=True))
ACTIVATIONS = [
    "bhid,bhjd->bhij",
    "bhij,bhjd->bihd",
    "ibnd,jbnd->bnij",
    "bnij,jbnd->ibnd",
    "bid, bjd -> bij",
    "bihd,jhd->bhij",
]
MATRICES = ["ibh,hnd->ibnd", "ibnd,hnd->ibh", "ibnd,snd->ibns", "bih,hd->bid", "hd,bih->bid", "bid,hd->hib"]
OTHERS = ["i,d->id", "bii,bij->bi", "...id,...jd->...ij", "bid,bij->bj", "bid,bid->bi", "bhd,bhjd->bhj", "bid->bdi"]


def model_of(equation: str, fixed: int | None) -> tuple[Model, list[dict[str, np.ndarray]]]:
    """One Einsum whose operand number `fixed` is a constant, and what to feed it."""
    rng = np.random.default_rng(0)
    operands = equation.partition("->")[0].replace(" ", "").replace("...", "b").split(",")
    values = [rng.standard_normal([SIZES[c] for c in letters]).astype(np.float32) for letters in operands]
    inputs = [
        gs.Constant(f"x{i}", x)
        if i == fixed
        else gs.Variable(f"x{i}", np.dtype(np.float32), [f"{c}{i}" for c in letters])
        for i, (x, letters) in enumerate(zip(values, operands, strict=True))
    ]
    given = [tensor for tensor in inputs if constant(tensor) is None]
    y = gs.Variable("y", np.dtype(np.float32))
    node = gs.Node("Einsum", "einsum", {"equation": equation}, inputs, [y])
    proto = gs.export_onnx(gs.Graph([node], given, [y], opset=17))
    return Model.from_proto(proto), [{f"x{i}": x for i, x in enumerate(values) if i != fixed}]


@pytest.mark.parametrize("fixed", [None, 1])
@pytest.mark.parametrize("equation", ACTIVATIONS)
def test_activations_are_multiplied_as_they_were(equation, fixed):
    (model, feeds), (before, _) = model_of(equation, fixed), model_of(equation, fixed)
    assert spell_einsums(model.graph) == 1
    model.changed()
    assert not any(node.op == "Einsum" for node in model.graph.nodes)
    assert_same_outputs(model, before, feeds, atol=1e-5)


@pytest.mark.parametrize("equation", MATRICES)
def test_a_constant_of_two_groups_of_letters_is_a_dense_layer(equation):
    """With letters in common that stay, the matrix has a product of its own for each."""
    fixed = 0 if equation.startswith("hd,") else 1
    (model, feeds), (before, _) = model_of(equation, fixed), model_of(equation, fixed)
    assert spell_einsums(model.graph) == 1
    model.changed()
    assert any(map(is_linear, model.graph.nodes)) == (equation != "ibnd,snd->ibns")
    assert_same_outputs(model, before, feeds, atol=1e-5)


@pytest.mark.parametrize("equation", OTHERS)
def test_what_is_no_single_product_stays(equation):
    assert spell_einsums(model_of(equation, None)[0].graph) == 0


def test_a_sum_over_two_letters_of_activations_stays():
    assert spell_einsums(model_of("ibnd,jbnd->ij", None)[0].graph) == 0


def test_attention_written_as_einsums_is_proven_and_fused():
    plain = {"window": 0, "bias": "none", "rotary": False, "groups": HEADS, "packing": "none", "mask": "input"}
    kind = replace(random_kind(0), **plain, head="first")
    model = encoder(kind)
    products = [node for node in model.graph.nodes if node.op == "MatMul" and constant(node.inputs[1]) is None]
    for node in products:
        node.op, node.attrs["equation"] = "Einsum", "bhij,bhjk->bhik"
    for step in (Canonicalize(), Fuse()):
        step.apply(model, Context())
    assert len(products) == 4
    assert all(layer.form is not None for layer in model.encoder.layers)
    assert sum(node.op == "MultiHeadAttention" for node in model.graph.nodes) == 2
    ids = np.random.default_rng(2).integers(2, 31, (2, 7))
    mask = np.array([[1, 0, 1, 1, 0, 1, 0], [1] * 7])
    assert_same_outputs(model, encoder(kind), [{"input_ids": ids, "attention_mask": mask}], atol=1e-5)
