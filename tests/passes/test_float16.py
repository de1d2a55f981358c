"""Half precision: half the bytes, finite answers near those of the float model."""

from typing import Any

import numpy as np
import pytest
from graphs import SOME, apply, every_padding, prepared, reference
from oracles import answers, matrix
from random_encoders import HEADS, HIDDEN, VOCABULARY, Kind, encoder

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse

CANONICAL, FUSE, STANDARD, HALF = Canonicalize(), Fuse(), Fuse(style="standard"), Float16()


@pytest.mark.parametrize("steps", [(), (FUSE,), (STANDARD,), (FUSE, FirstToken())], ids=len)
@pytest.mark.parametrize("name", SOME)
def test_answers_are_finite_and_near(name, steps):
    """On every padding: masks of -3.4e38 become infinite in half precision, and NaN from there, unless clamped."""
    exact, model = prepared(name, CANONICAL, *steps), prepared(name, CANONICAL, *steps, HALF)
    given = every_padding(exact)
    for ours, theirs in zip(answers(model, given), answers(exact, given), strict=True):
        assert (ours["logits"].dtype, ours["logits"].shape) == (theirs["logits"].dtype, theirs["logits"].shape)
        assert np.isfinite(ours["logits"]).all()
        np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=2e-2)


@pytest.mark.parametrize("name", SOME)
def test_the_encoder_is_found_in_half_precision(name):
    """Every role rounded to float16, and the mask proven still."""
    model, expected = prepared(name, CANONICAL, FUSE, HALF), reference(name)
    assert model.encoder.mask == "attention_mask"
    for layer in model.encoder.layers:
        for role, linear in layer.linears.items():
            weight = matrix(model, linear)
            assert weight.dtype == np.float16
            np.testing.assert_array_equal(weight, expected[f"layers.{layer.index}.{role}.weight"].T.astype(np.float16))


def test_weights_take_half_the_bytes():
    def weight_bytes(model: Model) -> int:
        return sum(c.values.nbytes for c in model.constants().values() if c.values.ndim == 2 and c.values.size > 30)

    before, after = prepared("bert-ts17-eager", CANONICAL, FUSE), prepared("bert-ts17-eager", CANONICAL, FUSE, HALF)
    assert weight_bytes(after) <= 0.51 * weight_bytes(before)


def test_a_second_time_changes_nothing_and_says_so():
    change = apply(HALF, prepared("bert-ts17-eager", CANONICAL, FUSE, HALF))
    assert not change


@pytest.mark.parametrize("change", [{"before": True}, {"window": 13, "packing": "heads"}], ids=str)
@pytest.mark.parametrize("steps", [(), (FUSE,)], ids=["as exported", "fused"])
def test_squares_stay_float_from_a_norm_s_start_to_its_end(steps, change):
    """Also behind fused attention, of which shape inference knows no type; 500 squared is no number of float16."""
    plain: dict[str, Any] = {
        "positions": "table", "window": 0, "bias": "none", "rotary": False, "groups": HEADS, "norm": "rms",
        "before": False, "gate": "split", "packing": "none", "mask": "input", "pad": 0, "head": "states",
    }  # fmt: skip
    exact = encoder(Kind(**(plain | change)))
    for name, constant in exact.constants().items():
        if constant.values.shape == (VOCABULARY, HIDDEN):
            exact.replace(name, 3000 * constant.values)
    exact.changed()
    model = exact.clone()
    for step in (CANONICAL, *steps, HALF):
        apply(step, model)
    ids = np.random.default_rng(0).integers(2, VOCABULARY, (2, 9))
    (ours,), (theirs,) = (answers(each, [{"input_ids": ids, "attention_mask": 0 * ids + 1}]) for each in (model, exact))
    assert np.abs(theirs["output"]).max() > 1
    np.testing.assert_allclose(ours["output"], theirs["output"], atol=2e-2)
