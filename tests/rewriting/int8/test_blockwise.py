"""Blocks of a matrix in a few bits: rounding to the nearest level, GPTQ's making up for errors, and where bits lie."""

import itertools

import numpy as np
import pytest

from onnxslim_bert.rewriting.int8.blockwise import (
    Blocks,
    gptq,
    pack_blocks,
    pack_zeros,
    refined,
    round_blocks,
    unpack_zeros,
)


def problem(d_in: int, d_out: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A matrix, and the covariance of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d_in, d_in)) * np.linspace(0.1, 2, d_in)
    return rng.standard_normal((d_in, d_out)).astype(np.float32), mixing @ mixing.T / d_in


def lost(weight: np.ndarray, covariance: np.ndarray, blocks: Blocks) -> float:
    """The variance of x @ weight that rounding costs."""
    error = weight - blocks.matrix
    return float(np.sum(error * (covariance @ error)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("d_in", [16, 33, 50])
def test_no_entry_is_farther_off_than_half_a_step_unless_it_is_clipped(bits, d_in):
    weight, _ = problem(d_in, 7)
    blocks = round_blocks(weight, bits, 16)
    assert blocks.levels.shape == weight.shape
    assert blocks.scales.shape == blocks.zeros.shape == (-(-d_in // 16), 7)
    off = np.abs(blocks.matrix - weight)
    inside = (blocks.levels > 0) & (blocks.levels < (1 << bits) - 1)
    assert (off[inside] <= blocks.of_rows(blocks.scales)[inside] / 2 + 1e-6).all()
    assert inside.mean() > 0.7


def test_a_block_far_from_zero_uses_all_its_levels():
    """Entries from 0 to 1, and from -1 to 0: no level is spent on the other sign."""
    row = np.linspace(0, 1, 16, dtype=np.float32)[:, None]
    blocks = round_blocks(np.hstack([row, -row]), 4, 16)
    assert [len(np.unique(column)) for column in blocks.levels.T] == [16, 16]
    assert blocks.zeros.tolist() == [[0, 15]]


@pytest.mark.parametrize("d_in", [32, 50, 200])
def test_gptq_loses_less_of_the_products_than_rounding(d_in):
    weight, covariance = problem(d_in, 11)
    found = lost(weight, covariance, gptq(weight, covariance, 4, 16))
    assert found < 0.8 * lost(weight, covariance, round_blocks(weight, 4, 16))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("d_in", [16, 50])
def test_moving_levels_and_scales_one_by_one_only_helps(bits, d_in):
    """From any start; behind it no single level is better one up or one down."""
    weight, covariance = problem(d_in, 11)
    covariance += 0.1 * np.eye(d_in)
    blocks = round_blocks(weight, bits, 16)
    losses = [lost(weight, covariance, blocks)]
    for _ in range(30):
        blocks = refined(blocks, weight, covariance.astype(np.float32))
        losses.append(lost(weight, covariance, blocks))
    assert all(after <= before * (1 + 1e-4) for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.9 * losses[0]
    matrix, steps = blocks.matrix, blocks.of_rows(blocks.scales)
    for i in range(d_in):
        for by in (-1, 1):
            inside = (blocks.levels[i].astype(int) + by >= 0) & (blocks.levels[i].astype(int) + by < 1 << bits)
            moved = matrix.copy()
            moved[i] += by * steps[i]
            worse = [np.sum(e * (covariance @ e), 0) for e in (weight - matrix, weight - moved)]
            assert (worse[1] >= worse[0] - 1e-3 * losses[-1])[inside].all(), (i, by)


def test_inputs_that_know_nothing_of_each_other_are_rounded_to_the_nearest():
    """There is nothing that could make up for an error."""
    weight, _ = problem(48, 5)
    blocks = gptq(weight, np.eye(48), 4, 16)
    exact = weight / blocks.of_rows(blocks.scales) + blocks.of_rows(blocks.zeros)
    off = np.abs(blocks.levels - np.clip(exact, 0, 15))
    assert (off <= 0.5 + 1e-3).mean() > 0.99, "the scale moves behind the levels"
    assert lost(weight, np.eye(48), blocks) <= lost(weight, np.eye(48), round_blocks(weight, 4, 16))


def test_two_inputs_that_are_one_share_the_error():
    """x1 = x0: only w0 + w1 counts, and the second input takes up what the first one lost."""
    weight, _ = problem(16, 9)
    covariance = np.eye(16)
    covariance[0, 1] = covariance[1, 0] = 1 - 1e-6
    blocks = gptq(weight, covariance, 4, 16)
    error = weight - blocks.matrix
    assert np.abs(error[0] + error[1]).max() <= np.abs(blocks.scales).max() / 2 + 1e-5
    assert np.abs(error[:2]).sum() > np.abs(error[0] + error[1]).sum()


def test_zeros_stay_zeros():
    assert not gptq(np.zeros((16, 3), np.float32), np.zeros((16, 16)), 4, 16).matrix.any()


def test_the_first_of_two_levels_lies_in_the_low_bits():
    levels = np.arange(16, dtype=np.uint8)[:, None]
    assert pack_blocks(levels, 4, 16).tolist() == [[[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]]
    assert pack_blocks(levels[:3], 8, 4).tolist() == [[[0, 1, 2, 128]]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_zeros_are_packed_by_output(bits, blocks):
    """A row of bytes for each output, the first zero in the low bits; what an odd number leaves over is 0."""
    zeros = np.random.default_rng(0).integers(0, 1 << bits, (blocks, 3)).astype(np.uint8)
    packed = pack_zeros(zeros, bits)
    assert packed.shape == (3 * -(-blocks * bits // 8),)
    assert packed[0] == (zeros[0, 0] | (zeros[1, 0] << 4) if bits == 4 and blocks > 1 else zeros[0, 0])
    assert np.array_equal(unpack_zeros(packed, 3, blocks, bits), zeros.T)
