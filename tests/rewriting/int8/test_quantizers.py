"""8-bit arrays are within half a step of what they stand for."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.int8 import quantizers
from onnxslim_bert.rewriting.int8.quantizers import (
    activation_quantizer,
    mean_rounding,
    quantize_columns,
    quantize_columns_affine,
    quantize_rows,
)

pytestmark = pytest.mark.full_range


@pytest.mark.parametrize("seed", range(3))
def test_columns_and_rows_are_within_half_a_step(seed):
    """Each column, and each row, uses its whole range."""
    values = (np.random.default_rng(seed).standard_t(3, (13, 7)) * np.arange(1, 8)).astype(np.float32)
    for (integers, scales), largest in (
        (quantize_columns(values), np.abs(values).max(0)),
        (quantize_rows(values), np.abs(values).max(1, keepdims=True)),
    ):
        assert (integers.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, largest.shape)
        assert (np.abs(integers * scales - values) <= scales / 2 * (1 + 1e-5)).all()
        np.testing.assert_allclose(scales * 127, largest, rtol=1e-6)
        assert integers.min() >= -127


@pytest.mark.parametrize("shift", [-3, -0.5, 0, 2])
def test_affine_columns_are_within_half_a_step_and_keep_zero(shift):
    """Of steps no wider than symmetric ones: the levels span what the column holds, and zero."""
    values = (np.random.default_rng(0).standard_t(3, (13, 7)) + shift).astype(np.float32)
    values[:, 5], values[3] = 0, 0
    levels, scales, zero_points = quantize_columns_affine(values)
    assert (levels.dtype, scales.dtype, zero_points.dtype) == (np.uint8, np.float32, np.uint8)
    restored = (levels - zero_points.astype(np.float32)) * scales
    assert (np.abs(restored - values) <= scales / 2 * (1 + 1e-4)).all()
    assert not restored[3].any()
    assert (scales <= quantize_columns(values)[1] * (1 + 1e-6)).all()


def test_a_column_of_zeros_stays_zero():
    """With a scale that divides."""
    values = np.zeros((5, 3), np.float32)
    values[:, 1] = 2
    integers, scales = quantize_columns(values)
    assert scales.tolist() == [1, pytest.approx(2 / 127), 1]
    assert integers[:, [0, 2]].tolist() == np.zeros((5, 2)).tolist()


@pytest.mark.parametrize(("low", "high"), [(-3, 5), (0, 7), (-2, 0), (-1e-6, 1e-3), (-100, 0.01)])
def test_the_quantizer_spans_its_range_and_keeps_zero(low, high):
    scale, zero_point = activation_quantizer(low, high)
    assert (scale.dtype, zero_point.dtype) == (np.float32, np.uint8)
    levels = (np.arange(256) - int(zero_point)) * float(scale)
    assert 0 in levels
    assert levels[0] == pytest.approx(low, abs=0.51 * float(scale))
    assert levels[-1] == pytest.approx(high, abs=0.51 * float(scale))


@pytest.mark.parametrize("size", [1e-44, 1e-39, 1e-31])
def test_what_is_almost_nothing_is_zero_and_divides_nothing(size):
    """One over a scale that float32 cannot hold would be infinite, and its products with zero no numbers."""
    weight = np.full((4, 3), size, np.float32)
    levels, scales = quantize_columns(weight)
    shifted, affine, zeros = quantize_columns_affine(weight)
    scale, zero = activation_quantizer(-size, size)
    assert np.isfinite(1 / np.array([*scales, *affine, scale], np.float32)).all()
    assert (levels, shifted, zeros, zero) == (pytest.approx(0), pytest.approx(0), pytest.approx(0), 0)


def test_a_range_of_nothing_has_a_quantizer():
    assert [float(x) for x in activation_quantizer(0, 0)] == [1, 0]


def test_mean_rounding_is_what_the_product_loses():
    """The correction added, the int8 product has the mean of the float one."""
    rng = np.random.default_rng(0)
    rows, weight = rng.normal(1, 1, (97, 7)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    scale, zero_point = activation_quantizer(float(rows.min()) - 1, float(rows.max()) + 1)
    integers, scales = quantize_columns(weight)
    product = ((np.rint(rows / scale) * scale) @ integers) * scales
    correction = mean_rounding(rows, weight, (integers, scales), scale, zero_point)
    np.testing.assert_allclose((product + correction).mean(0), (rows @ weight).mean(0), atol=1e-5)
    assert np.abs(correction).max() > 1e-4


@pytest.mark.parametrize("rows", [1, 4, 11, 12])
def test_a_table_is_quantized_alike_however_many_rows_at_a_time(monkeypatch, rows):
    """A row of zeros among them, and a last part that is shorter."""
    table = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    table[3] = 0
    whole = quantize_rows(table)
    monkeypatch.setattr(quantizers, "ROWS", rows)
    for part, expected in zip(quantize_rows(table), whole, strict=True):
        np.testing.assert_array_equal(part, expected)
        assert part.dtype == expected.dtype
