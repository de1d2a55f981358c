"""The range method is the one that moves the outputs least on rows that were held back."""

import numpy as np
import pytest
from graphs import batches, feeds, prepared
from oracles import answers

from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.choose_method import choose_method, outputs, relative_error
from onnxslim_bert.model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic

HELD_BACK = ((4, 7), (3, 11))


@pytest.fixture
def model() -> Model:
    return prepared("bert-ts17-eager", Canonicalize(), Fuse())


def test_the_least_error_wins(model):
    """Measured for every method on the held-back rows; the model is quantized with the best, as asked otherwise."""
    fitting, held_back = batches(model), batches(model, HELD_BACK)
    exact = outputs(model, held_back)
    action, change, errors = choose_method(model, QuantizeStatic(format="qdq", embeddings=False), fitting, held_back)
    assert list(errors) == list(METHODS)
    assert errors[action.method] == min(errors.values())
    assert len(set(errors.values())) > 1
    assert (action.format, action.embeddings, change.count) == ("qdq", False, 18)
    assert relative_error(exact, outputs(model, held_back)) == pytest.approx(errors[action.method])


def test_outputs_leave_padding_out():
    """A hidden state counts for its real tokens, logits for each row."""
    model = prepared("bert-features-pooled", Canonicalize(), Fuse())
    given = batches(model, HELD_BACK)
    found = outputs(model, given)
    exact = answers(model, [batch.feeds for batch in given])
    for i, batch in enumerate(given):
        np.testing.assert_allclose(found[2 * i], exact[i]["last_hidden_state"][batch.mask], atol=1e-5)
        np.testing.assert_allclose(found[2 * i + 1], exact[i]["pooler_output"], atol=1e-5)


def test_relative_error_is_a_share_of_the_norm():
    exact = [np.array([[3.0, 0.0]]), np.array([[4.0]])]
    assert relative_error(exact, exact) == 0
    assert relative_error(exact, [np.array([[3.0, 1.0]]), np.array([[4.0]])]) == pytest.approx(1 / 5)
    assert np.isfinite(relative_error([np.zeros((2, 3))], [np.ones((2, 3))]))


def test_outputs_need_no_mask():
    model = prepared("bert-nomask", Canonicalize(), Fuse())
    assert [values.shape for values in outputs(model, batches(model, HELD_BACK))] == [(4, 5), (3, 5)]
    assert "attention_mask" not in feeds(model)
