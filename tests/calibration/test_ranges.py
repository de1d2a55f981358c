"""Ranges hold zero and what their method promises of the values."""

import numpy as np
import pytest

from onnxslim_bert.calibration.observers import OBSERVERS, Range
from onnxslim_bert.calibration.ranges import METHODS, PERCENTILE, observer_of, quantizer_range
from onnxslim_bert.rewriting.int8.quantizers import activation_quantizer


def spanned(method: str, values: np.ndarray) -> Range:
    observer = OBSERVERS[observer_of(method)]()
    for rows in np.array_split(values.astype(np.float32)[:, None], 7):
        observer.update(rows)
    return quantizer_range(method, observer.result())


def squared_error(values: np.ndarray, found: Range) -> float:
    """What the uint8 quantizer of a range does to the values."""
    scale, zero_point = activation_quantizer(found.low, found.high)
    levels = np.clip(np.rint(values / scale) + float(zero_point), 0, 255) - float(zero_point)
    return float(np.square(levels * scale - values).sum())


def long_tailed() -> np.ndarray:
    """Mostly within 1, some to 20: what a layer reads after GELU."""
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 0.4, 30_000))
    values[:30] *= 20
    return rng.permutation(values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("low", [-7, -2, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_range_holds_zero_and_no_more_than_the_values(method, low, seed):
    """Whichever side of zero the values lie on; to within a bin."""
    values = np.random.default_rng(seed).uniform(low, low + 5, 3001)
    found = spanned(method, values)
    assert found.low <= 0 <= found.high
    slack = 0.05
    assert found.low >= min(values.min(), 0) - slack
    assert found.high <= max(values.max(), 0) + slack


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.5, -3.5])
def test_a_constant_has_a_range(method, value):
    """And a quantizer, which gives it back to half a step."""
    found = spanned(method, np.full(77, value))
    scale, zero_point = activation_quantizer(found.low, found.high)
    level = np.clip(np.rint(value / scale) + float(zero_point), 0, 255) - float(zero_point)
    assert scale > 0
    assert level * scale == pytest.approx(value, abs=0.51 * float(scale))


def test_minmax_spans_every_value():
    values = long_tailed()
    assert spanned("minmax", values) == Range(0, pytest.approx(values.max()))


def test_percentile_leaves_out_its_share():
    """On each side, to within the histogram's bins."""
    values = np.random.default_rng(0).normal(size=200_001)
    found = spanned("percentile", values)
    outside = (100 - PERCENTILE) / 2
    assert found.low == pytest.approx(np.percentile(values, outside), abs=0.05)
    assert found.high == pytest.approx(np.percentile(values, 100 - outside), abs=0.05)


def test_mse_has_the_least_error_of_a_sweep():
    """No clipping of one side, both sides or none, in finer steps than it tries, is clearly better."""
    values = np.random.default_rng(0).standard_t(3, 50_000)
    found = spanned("mse", values)
    best = min(
        squared_error(values, Range(values.min() * a, values.max() * b))
        for f in np.linspace(0.3, 1, 141)
        for a, b in ((f, f), (1, f), (f, 1))
    )
    assert squared_error(values, found) <= 1.05 * best


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_values_that_fill_their_range_are_not_clipped(method):
    values = np.random.default_rng(0).uniform(-4, 4, 50_000)
    found = spanned(method, values)
    assert found.low == pytest.approx(-4, abs=0.2)
    assert found.high == pytest.approx(4, abs=0.2)


def test_mse_is_never_worse_than_minmax():
    for values in (long_tailed(), np.random.default_rng(0).uniform(-1, 3, 5000)):
        assert squared_error(values, spanned("mse", values)) <= 1.01 * squared_error(values, spanned("minmax", values))


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_clipping_methods_clip_a_long_tail(method):
    values = long_tailed()
    assert spanned(method, values).high < 0.8 * values.max()


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_batches_matters_to_the_moving_average_only(method):
    values = np.random.default_rng(0).normal(size=7 * 997)
    forward, backward = spanned(method, values), spanned(method, values[::-1])
    if method != "moving-average":
        assert backward.low == pytest.approx(forward.low, abs=0.1)
        assert backward.high == pytest.approx(forward.high, abs=0.1)
