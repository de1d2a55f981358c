"""Packed rows stand for the nearest levels, whatever the width, and take the bytes that they say."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.weights.packed_rows import middle, pack_rows


def table_of(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("width", "block"), [(32, 32), (40, 8), (12, 8), (5, 16), (33, 32)])
def test_no_entry_is_farther_off_than_half_a_step_unless_it_is_clipped(bits, width, block):
    table = table_of(7, width)
    packed = pack_rows(table, bits, block)
    restored = packed.restored()
    assert restored.shape == table.shape
    steps = np.repeat(packed.scales.astype(np.float32), block, axis=1)[:, :width]
    inside = np.abs(table) <= steps * (middle(bits) + 0.5)
    assert (np.abs(restored - table)[inside] <= steps[inside] / 2 + 1e-6).all()
    edge = steps * middle(bits)
    assert np.allclose(np.abs(restored)[~inside], edge[~inside])
    assert packed.nbytes == 7 * packed.scales.shape[1] * (block * bits // 8 + 2)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_what_lies_on_the_grid_is_kept(bits):
    """With every level in a block: 2 bits of scale 0.5 are -0.75, -0.25, 0.25, 0.75."""
    levels = np.tile(np.arange(1 << bits), 32)[:32]
    grid = np.stack([(levels - middle(bits)) * scale for scale in (0.5, 2.0)]).astype(np.float32)
    assert np.array_equal(pack_rows(grid, bits, 32).restored(), grid)


def test_more_bits_and_smaller_blocks_are_nearer():
    table = table_of(64, 64) * np.linspace(0.1, 3, 64, dtype=np.float32)

    def error(bits: int, block: int) -> float:
        return float(np.linalg.norm(pack_rows(table, bits, block).restored() - table))

    assert error(4, 32) < error(3, 32) < error(2, 32)
    assert error(4, 8) < error(4, 32) < error(4, 64)


def test_rows_of_zeros_and_extreme_values_stay_finite():
    table = np.array([np.zeros(16), np.full(16, 6e4), np.full(16, 1e-9)], np.float32)
    restored = pack_rows(table, 4, 16).restored()
    assert np.isfinite(restored).all()
    assert not restored[0].any()
    assert np.allclose(restored[1], 6e4, rtol=1e-2)
