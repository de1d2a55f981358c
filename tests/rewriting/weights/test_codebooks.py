"""Codes and centroids for the rows of a table: exact where they can be, close where rows count, and repeatable."""

import numpy as np
import pytest

from onnxslim_bert.rewriting.weights.codebooks import Fit, code_rows

FITS = [Fit(4), Fit(4, 2), Fit(4, 2, together=True)]


def table_of(rows, width=12, seed=3):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("fit", FITS)
def test_a_codebook_with_an_entry_for_every_row_is_exact(fit):
    """700 rows, 256 of them different."""
    table = np.concatenate([table_of(256)] * 3)[:700]
    coded = code_rows(table, np.ones(700), fit)
    assert np.array_equal(coded.restored(), table)
    assert coded.codes.shape == (700, 3, fit.stages)


@pytest.mark.parametrize("fit", FITS)
def test_the_same_rows_give_the_same_codes(fit):
    table, weights = table_of(300, 4), np.arange(1.0, 301)
    one, other = (code_rows(table, weights, fit) for _ in range(2))
    assert np.array_equal(one.codes, other.codes)
    assert np.array_equal(one.centroids, other.centroids)


def test_a_second_code_lowers_the_error_and_a_joint_fit_lowers_it_again():
    table = table_of(1500, 8)
    errors = [np.square(code_rows(table, np.ones(1500), fit).restored() - table).mean() for fit in EIGHT]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


EIGHT = [Fit(8), Fit(8, 2), Fit(8, 2, together=True)]


def test_rows_that_count_more_are_kept_better():
    table = table_of(1200, 4)
    weights = np.where(np.arange(1200) < 200, 1000.0, 1.0)
    error = np.square(code_rows(table, weights, Fit(4)).restored() - table).sum(1)
    assert error[:200].mean() < 0.2 * error[200:].mean()


def test_the_last_group_ends_where_the_table_does():
    table = table_of(40, 7)
    coded = code_rows(table, np.ones(40), Fit(4))
    assert np.array_equal(coded.restored(), table)
    assert coded.centroids.shape == (2, 1, 40, 4)


def test_columns_are_scaled_where_centroids_are():
    table, columns = table_of(300, 7), np.arange(1, 8, dtype=np.float32)
    coded = code_rows(table, np.ones(300), Fit(2))
    assert np.allclose(coded.times(columns).restored(), coded.restored() * columns, atol=1e-6)
