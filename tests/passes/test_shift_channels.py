"""Shifted channels lie around zero, in a model that answers the same."""

import numpy as np
import pytest
from graphs import SOME, apply, batches, every_padding, feeds, prepared
from oracles import answers, assert_same_answers

from onnxslim_bert.calibration.collect import collect
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.shift_channels import ShiftChannels

CANONICAL, FUSE, SHIFT = Canonicalize(), Fuse(), ShiftChannels()
CHANNEL, FAR = 3, 9.0


def with_far_channel(name: str) -> Model:
    """The fused fixture, in which one channel of each norm and of each layer's values lies far from zero."""
    model = prepared(name, CANONICAL, FUSE)
    names = [node.inputs[2].name for node in model.graph.nodes if node.op == "LayerNormalization"]
    for constant in dict.fromkeys([*names, *(layer.value.bias for layer in model.encoder.layers)]):
        values = model.array(constant).copy()
        values[CHANNEL] += FAR
        model.replace(constant, values)
    model.changed()
    return model


def middles(model: Model, source: str) -> np.ndarray:
    (ranges,) = collect(model, [Want(source, "channel-range", hard=True)], batches(model)).values()
    return ranges.sum(0) / 2


@pytest.mark.parametrize("name", SOME)
def test_the_float_model_answers_the_same(name):
    """To 1e-4 of what it answers, on every padding."""
    exact = with_far_channel(name)
    model = exact.clone()
    assert apply(SHIFT, model).count > 0 or "albert" in name
    given = every_padding(exact)
    for ours, theirs in zip(answers(model, given), answers(exact, given), strict=True):
        np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-4 * np.abs(theirs["logits"]).max())


@pytest.mark.parametrize("name", ["bert-dynamo18-eager", "prenorm-dynamo18-eager"])
def test_what_dense_layers_read_lies_around_zero(name):
    """Post-norm, where residual sums read the norms too, and pre-norm; attention's result in both. No node is added."""
    exact = with_far_channel(name)
    model = exact.clone()
    change = apply(SHIFT, model)
    assert change.details["share"] < 0.7
    assert len(model.graph.nodes) == len(exact.graph.nodes)
    for layer in model.encoder.layers:
        for linear in (layer.query, layer.output, layer.up):
            assert abs(middles(exact, linear.source)[CHANNEL]) > FAR / 2
            np.testing.assert_allclose(middles(model, linear.source), 0, atol=1e-4)


def test_what_shifts_cannot_be_undone_stays():
    """A bias that layers share, a norm that the model gives back, and one that another node reads."""
    model = with_far_channel("bert-dynamo18-eager")
    first, second = model.encoder.layers[:2]
    tensors = model.graph.tensors()
    adder = tensors[second.up.result].inputs[0]
    adder.inputs[next(i for i, t in enumerate(adder.inputs) if t.name == second.up.bias)] = tensors[first.up.bias]
    returned = tensors[second.query.source]
    returned.dtype = np.dtype(np.float32)
    model.graph.outputs.append(returned)
    model.changed()
    exact = model.clone()
    apply(SHIFT, model)
    for source in (first.up.source, second.up.source, second.query.source):
        assert abs(middles(model, source)[CHANNEL]) > FAR / 2
    assert abs(middles(model, first.query.source)[CHANNEL]) < 1e-4
    given = [feeds(model, 3, 7)]
    assert_same_answers(answers(model, given)[0], answers(exact, given)[0], 1e-4)


def test_a_second_time_there_is_nothing_to_shift():
    model = with_far_channel("bert-dynamo18-eager")
    apply(SHIFT, model)
    change = apply(SHIFT, model)
    assert (change.count, change.note[:34]) == (0, "no input has channels whose shift ")


def test_an_int8_model_is_refused():
    with pytest.raises(PassError, match="quantized already"):
        apply(SHIFT, prepared("bert-ts17-eager", CANONICAL, FUSE, QuantizeStatic()))
