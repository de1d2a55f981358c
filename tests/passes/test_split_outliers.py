"""A few channels computed in float beside the int8 product: the float model stays what it was on calibration rows."""

import numpy as np
import pytest
from graphs import SOME, apply, batches, prepared
from int8_oracles import INTEGER_PRODUCTS
from oracles import assert_same_outputs, optimized

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.split_outliers import SplitOutliers, choose_outliers

CANONICAL, FUSE, SPLIT = Canonicalize(), Fuse(), SplitOutliers()
CHANNELS = (4, 11)


def with_outliers(name: str) -> Model:
    """The fused fixture with two neurons of each feed-forward far above the others."""
    model = prepared(name, CANONICAL, FUSE)
    for bias in dict.fromkeys(layer.up.bias for layer in model.encoder.layers):
        values = model.array(bias).copy()
        values[list(CHANNELS)] = 60, 90
        model.replace(bias, values)
    model.changed()
    return model


@pytest.mark.parametrize("name", [name for name in SOME if not name.startswith("albert")])
def test_the_float_model_answers_the_same(name):
    """Channels that stay are clipped where calibration rows end, so on those rows nothing changes."""
    exact = with_outliers(name)
    model = exact.clone()
    change = apply(SPLIT, model)
    assert len(change.details) == 3
    assert min(change.details.values()) >= 2
    assert_same_outputs(model, exact, [batch.feeds for batch in batches(exact)], atol=2e-5)


@pytest.mark.parametrize("form", ["contrib", "qdq"])
def test_the_rest_runs_in_integers(form):
    """The layers are still found; each has its integer product, and a small float one where it was split."""
    model = with_outliers("bert-dynamo18-eager")
    apply(SPLIT, model)
    apply(QuantizeStatic(format=form), model)
    operators = [node.op_type for node in optimized(model).node]
    assert sum(op in INTEGER_PRODUCTS for op in operators) == 18
    assert "DequantizeLinear" not in operators
    assert all(linear.quantized for layer in model.encoder.layers for linear in layer.linears.values())


@pytest.mark.parametrize("name", [name for name in SOME if not name.startswith("albert")])
def test_layers_begin_and_end_where_they_did(name):
    """What is computed in float beside a layer's product is no stream."""
    exact = with_outliers(name)
    model = exact.clone()
    assert apply(SPLIT, model)
    assert find_spans(model) == find_spans(exact)
    apply(QuantizeStatic(), model)
    assert [span.exit for span in find_spans(model)] == [span.exit for span in find_spans(exact)]


def test_each_row_of_a_weight_is_in_one_product():
    """Zero in the one, as it was in the other."""
    exact = with_outliers("bert-dynamo18-eager")
    model = exact.clone()
    change = apply(SPLIT, model)
    for layer in model.encoder.layers:
        count = change.details[layer.down.node]
        before, rest = (m.array(layer.down.weight) for m in (exact, model))
        taken = np.flatnonzero(~rest.any(axis=1))
        assert set(CHANNELS) <= set(taken)
        assert len(taken) == count
        np.testing.assert_array_equal(rest[rest.any(axis=1)], before[rest.any(axis=1)])
        rows = [c.values for c in model.constants().values() if c.values.shape == (count, 12)]
        assert any((row == before[taken]).all() for row in rows)


def test_layers_that_share_a_weight_are_left():
    """ALBERT: another layer reads the rows that would be taken out."""
    assert not apply(SPLIT, with_outliers("albert-dynamo18-eager"))


# the decision


def sampled() -> tuple[np.ndarray, np.ndarray]:
    """rows [97, 401] and a weight [401, 5]."""
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (97, 401)).astype(np.float32), rng.normal(size=(401, 5)).astype(np.float32)


def chosen(rows: np.ndarray, weight: np.ndarray, gain: float = 0.7) -> list[int]:
    return choose_outliers(rows, np.stack([rows.min(0), rows.max(0)]), weight, gain).tolist()


def test_outliers_are_chosen_in_ascending_order():
    """Rare large values in two channels, which a scale for all their rows does not help."""
    rows, weight = sampled()
    rows[3, 317] = rows[8, 5] = 400
    assert chosen(rows, weight) == [5, 317]


def test_none_are_chosen_where_none_stand_out():
    assert chosen(*sampled()) == []


def test_none_are_chosen_where_that_does_not_pay():
    rows, weight = sampled()
    rows[3, 317] = 400
    assert chosen(rows, weight, gain=0.7) == [317]
    assert chosen(rows, weight, gain=1e-6) == []


def test_too_narrow_an_input_is_left():
    """Fewer than eight channels; at eight, one of them may go."""
    rows, weight = sampled()
    rows[3, 5] = 400
    assert chosen(rows[:, :7], weight[:7]) == []
    assert chosen(rows[:, :8], weight[:8]) == [5]


def test_where_nothing_stands_out_nothing_changes_and_that_is_said():
    model = prepared("bert-dynamo18-eager", CANONICAL, FUSE)
    before = model.fingerprint()
    change = apply(SplitOutliers(gain=1e-6), model)
    assert not change
    assert change.note.startswith("no channel is better in float")
    assert model.fingerprint() == before
