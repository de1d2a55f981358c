"""Blocks of a matrix in a few bits: rounding to the nearest level, GPTQ's making up for errors, and where bits lie."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.int8.blockwise import gptq, pack_blocks, restore_blocks, round_blocks


def problem(d_in: int, d_out: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and the covariance of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d_in, d_in)) * np.linspace(0.1, 2, d_in)
    return rng.standard_normal((d_in, d_out)).astype(np.float32), mixing @ mixing.T / d_in


def lost(weight, covariance, levels, scales, bits, block) -> float:
    """The variance of x @ weight that rounding costs."""
    error = weight - restore_blocks(levels, scales, bits, block)
    return float(np.sum(error * (covariance @ error)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("d_in", [16, 33, 50])
def test_no_entry_is_farther_off_than_half_a_step_unless_it_is_clipped(bits, d_in):
    weight, _ = problem(d_in, 7)
    levels, scales = round_blocks(weight, bits, 16)
    assert (levels.shape, scales.shape) == (weight.shape, (-(-d_in // 16), 7))
    steps = np.abs(np.repeat(scales, 16, axis=0)[:d_in])
    off = np.abs(restore_blocks(levels, scales, bits, 16) - weight)
    inside = (levels > 0) & (levels < (1 << bits) - 1)
    assert (off[inside] <= steps[inside] / 2 + 1e-6).all()
    assert inside.mean() > 0.7


@pytest.mark.parametrize("d_in", [32, 50, 200])
def test_gptq_loses_less_of_the_products_than_rounding(d_in):
    weight, covariance = problem(d_in, 11)
    assert lost(weight, covariance, *gptq(weight, covariance, 4, 16), 4, 16) < 0.8 * lost(
        weight, covariance, *round_blocks(weight, 4, 16), 4, 16
    )


def test_inputs_that_know_nothing_of_each_other_are_rounded_to_the_nearest():
    """There is nothing that could make up for an error."""
    weight, _ = problem(48, 5)
    for found, expected in zip(gptq(weight, np.eye(48), 4, 16), round_blocks(weight, 4, 16), strict=True):
        assert np.array_equal(found, expected)


def test_two_inputs_that_are_one_share_the_error():
    """x1 = x0: only w0 + w1 counts, and the second input takes up what the first one lost."""
    weight, _ = problem(16, 9)
    covariance = np.eye(16)
    covariance[0, 1] = covariance[1, 0] = 1 - 1e-6
    levels, scales = gptq(weight, covariance, 4, 16)
    error = weight - restore_blocks(levels, scales, 4, 16)
    assert np.abs(error[0] + error[1]).max() <= np.abs(scales).max() / 2 + 1e-5
    assert np.abs(error[:2]).sum() > np.abs(error[0] + error[1]).sum()


def test_zeros_stay_zeros():
    levels, scales = gptq(np.zeros((16, 3), np.float32), np.zeros((16, 16)), 4, 16)
    assert not restore_blocks(levels, scales, 4, 16).any()


def test_the_first_of_two_levels_lies_in_the_low_bits():
    levels = np.arange(16, dtype=np.uint8)[:, None]
    assert pack_blocks(levels, 4, 16).tolist() == [[[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]]
    assert pack_blocks(levels[:3], 8, 4).tolist() == [[[0, 1, 2, 128]]]
