"""Dense layers as MatMulNBits: what the operator computes is what was rounded, whichever exporter, shared or not."""

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, every_padding, prepared, trials
from oracles import assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_blockwise import QuantizeBlockwise
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.int8.blockwise import round_blocks

CANONICAL, FUSE = Canonicalize(), Fuse()
NEAREST = QuantizeBlockwise(block=16, rounding="nearest", compute="float32")


def with_rounded_weights(name, *steps, bits=4):
    """The float model whose matrices hold what their levels stand for."""
    model = prepared(name, *steps)
    for weight, trans_b in {(linear.weight, linear.trans_b) for linear in dense_layers(model)}:
        values = model.array(weight).T if trans_b else model.array(weight)
        restored = round_blocks(values, bits, 16).matrix
        model.replace(weight, np.ascontiguousarray(restored.T if trans_b else restored))
    return model


@pytest.mark.parametrize("name", DISTINCT)
def test_the_operator_multiplies_what_was_rounded(name):
    model = prepared(name, CANONICAL, FUSE, NEAREST)
    assert_same_outputs(model, with_rounded_weights(name, CANONICAL, FUSE), every_padding(model), atol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_both_widths(bits):
    step = QuantizeBlockwise(bits, 16, "nearest", "float32")
    model = prepared("bert-ts13-eager", CANONICAL, step)
    exact = with_rounded_weights("bert-ts13-eager", CANONICAL, bits=bits)
    assert_same_outputs(model, exact, every_padding(model), atol=1e-4)


def test_gptq_is_nearer_to_the_float_model_than_rounding():
    """In the mean of models with a dozen inputs a matrix, of which one alone can go either way."""
    shares = []
    for name in SOME:
        before = prepared(name, CANONICAL, FUSE)
        fitted, nearest = (
            trials(before).damage(prepared(name, CANONICAL, FUSE, QuantizeBlockwise(4, 16, rounding, "float32")))
            for rounding in ("gptq", "nearest")
        )
        shares.append(fitted / nearest)
    assert np.exp(np.mean(np.log(shares))) < 0.9, shares


@pytest.mark.parametrize("name", SOME)
def test_the_encoder_is_found_again(name):
    """With the same widths and roles; what layers share is stored once."""
    before = prepared(name, CANONICAL, FUSE)
    model = prepared(name, CANONICAL, FUSE, NEAREST)
    assert len(model.encoder.layers) == len(before.encoder.layers)
    for found, was in zip(model.encoder.layers, before.encoder.layers, strict=True):
        assert {r: (x.d_in, x.d_out, x.quantized) for r, x in found.linears.items()} == {
            r: (x.d_in, x.d_out, True) for r, x in was.linears.items()
        }
        assert found.heads == was.heads
    stored = {linear.weight for layer in model.encoder.layers for linear in layer.linears.values()}
    assert len(stored) == len({linear.weight for layer in before.encoder.layers for linear in layer.linears.values()})


def test_integers_are_multiplied_unless_asked_otherwise():
    model = prepared("bert-ts17-sdpa", CANONICAL, QuantizeBlockwise(block=16))
    levels = {node.attrs["accuracy_level"] for node in model.graph.nodes if node.op == "MatMulNBits"}
    assert levels == {4}


def test_what_is_quantized_already_is_refused():
    model = prepared("bert-ts17-sdpa", CANONICAL, NEAREST)
    with pytest.raises(PassError, match="dense layers are quantized already; start from the float model"):
        apply(NEAREST, model)


def test_without_calibration_only_the_nearest_can_be_had():
    model = prepared("bert-ts17-sdpa", CANONICAL)
    assert list(NEAREST.wants(model)) == []
    assert NEAREST.apply(model, Context()).count == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "bits=3 is not one of 4, 8"),
        ({"block": 24}, "block=24 is not a power of two from 16 up"),
        ({"rounding": "up"}, "rounding='up' is not one of gptq, nearest"),
        ({"compute": "int4"}, "compute='int4' is not one of int8, float32"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(PassError, match=f"quantize-blockwise: {message}"):
        QuantizeBlockwise(**options)
