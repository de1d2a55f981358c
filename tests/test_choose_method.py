"""The range method is the one that moves the outputs least on rows that were held back."""

import pytest
from graphs import prepared, trials

from onnxslim_bert.calibration.ranges import METHODS
from onnxslim_bert.choose_method import choose_method
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic


def test_the_least_damage_wins():
    """Measured for every method on the held-back rows; the model is quantized with the best, as asked otherwise."""
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse())
    on_rows = trials(model)
    action, change, errors = choose_method(model, QuantizeStatic(format="qdq", embeddings=False), on_rows)
    assert list(errors) == list(METHODS)
    assert errors[action.method] == min(errors.values())
    assert len(set(errors.values())) > 1
    assert (action.format, action.embeddings, change.count) == ("qdq", False, 18)
    assert on_rows.damage(model) == pytest.approx(errors[action.method])
