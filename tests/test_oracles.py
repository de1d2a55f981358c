"""The oracles fail when they must."""

import numpy as np
import pytest
from graphs import feeds, fixture, prepared, reference
from oracles import assert_roles, assert_same_answers, assert_same_outputs

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize

NAME = "bert-features-pooled"  # the one fixture with two outputs


@pytest.fixture
def model() -> Model:
    return prepared(NAME, Canonicalize())


def test_a_model_answers_as_itself(model):
    assert_same_outputs(model, Model.load(fixture(NAME)), [feeds(model)], atol=0, optimize=False)


def test_one_changed_weight_shows(model):
    """A single element of a single matrix, by 1e-2."""
    changed = model.clone()
    name = changed.encoder.layers[1].up.weight
    weight = changed.array(name).copy()
    weight[3, 5] += 1e-2
    changed.replace(name, weight)
    with pytest.raises(AssertionError, match="batch 0: last_hidden_state differs by"):
        assert_same_outputs(changed, model, [feeds(model)], atol=1e-5)


def test_a_difference_in_the_last_batch_shows(model):
    """Token type 1 is read in the second batch only."""
    changed = model.clone()
    name = changed.encoder.embeddings.token_type
    changed.replace(name, changed.array(name) * np.array([[1], [2]], np.float32))
    first, second = feeds(model), feeds(model)
    first["token_type_ids"][:] = 0
    assert_same_outputs(changed, model, [first], atol=1e-5)
    with pytest.raises(AssertionError, match="batch 1: "):
        assert_same_outputs(changed, model, [first, second], atol=1e-5)


def test_an_output_missing_or_extra_shows(model):
    smaller = model.clone()
    smaller.graph.outputs.pop()
    smaller.changed()
    for actual, expected in ((smaller, model), (model, smaller)):
        with pytest.raises(AssertionError, match="outputs"):
            assert_same_outputs(actual, expected, [feeds(model)], atol=1)


@pytest.mark.parametrize(
    "wrong",
    [np.ones((3, 2), np.float32), np.ones((2, 3), np.float64), np.full((2, 3), np.nan, np.float32)],
    ids=["shape", "type", "nan"],
)
def test_wrong_answers_show(wrong):
    right = np.ones((2, 3), np.float32)
    with pytest.raises(AssertionError):
        assert_same_answers({"logits": wrong}, {"logits": right}, 0.1)
    with pytest.raises(AssertionError):
        assert_same_answers({"logits": right}, {"logits": np.full_like(right, np.nan)}, 0.1)


def test_swapped_roles_show():
    """Query and key have equal shapes: only their values tell them apart."""
    expected = reference("bert")
    for kind in ("weight", "bias"):
        swapped = dict(expected)
        swapped[f"layers.2.query.{kind}"] = expected[f"layers.2.key.{kind}"]
        with pytest.raises(AssertionError, match=r"layers\.2\.query"):
            assert_roles(prepared("bert-ts17-eager", Canonicalize()), swapped)


def test_a_wrong_or_missing_table_shows():
    model, expected = prepared("bert-ts17-eager", Canonicalize()), reference("bert")
    with pytest.raises(AssertionError, match="position"):
        assert_roles(model, expected | {"embeddings.position.weight": expected["embeddings.position.weight"][::-1]})
    with pytest.raises(AssertionError, match="token_type"):
        assert_roles(model, {name: values for name, values in expected.items() if ".type." not in name})
