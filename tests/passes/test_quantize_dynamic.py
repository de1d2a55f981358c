"""Dynamic int8: the same weights as static int8, with ranges that the activations have."""

import numpy as np
import pytest
from graphs import SOME, every_padding, feeds, prepared
from int8_oracles import (
    assert_inputs_quantized_once,
    assert_runs_in_integers,
    assert_tables_close,
    assert_weights_close,
    linears_of,
    stored,
)
from oracles import answers, assert_same_outputs, values_of

from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic

CANONICAL, STANDARD, DYNAMIC = Canonicalize(), Fuse(style="standard"), QuantizeDynamic()
FORMATS = {"contrib": (CANONICAL, Fuse(), DYNAMIC), "qdq": (CANONICAL, STANDARD, QuantizeDynamic(format="qdq"))}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_weights_and_tables_are_stored_in_int8(name, form):
    *before, step = FORMATS[form]
    model, original = prepared(name, *before, step), prepared(name, *before)
    assert_weights_close(model, original)
    assert_tables_close(model, original)
    assert_inputs_quantized_once(model)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", SOME)
def test_it_runs_in_integers(name, form):
    model = prepared(name, *FORMATS[form])
    assert_runs_in_integers(model)
    if form == "qdq":
        assert not {node.domain for node in model.graph.nodes} - {None, ""}


@pytest.mark.parametrize("name", SOME)
def test_both_formats_answer_the_same(name):
    """From one fused graph; and near to the float model."""
    contrib, qdq = (prepared(name, CANONICAL, STANDARD, QuantizeDynamic(format=form)) for form in FORMATS)
    assert_same_outputs(qdq, contrib, every_padding(qdq), atol=1e-5)
    exact = prepared(name, CANONICAL, STANDARD)
    ours, theirs = answers(contrib, [feeds(exact)])[0], answers(exact, [feeds(exact)])[0]
    assert 0 < np.abs(ours["logits"] - theirs["logits"]).max() < 0.5


def test_a_range_is_that_of_the_batch():
    """The quantizer spans the input's smallest and largest value, and zero: computed here."""
    model = prepared("bert-ts17-eager", *FORMATS["contrib"])
    for linear in linears_of(model)[:4]:
        source, result = values_of(model, [linear.source, linear.result], feeds(model))
        low, high = min(source.min(), 0), max(source.max(), 0)
        scale = (high - low) / np.float32(255)
        zero_point = np.rint(-low / scale)
        levels = np.clip(np.rint(source / scale) + zero_point, 0, 255) - zero_point
        integers, scales = stored(model, linear)
        expected = (levels @ integers) * (scale * scales) + model.array(linear.bias)
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_it_wants_no_calibration():
    assert list(DYNAMIC.wants(prepared("bert-ts17-eager", CANONICAL))) == []
