"""What fewer bits do to each int8 matrix, and what they save in the file."""

import itertools

import numpy as np
import pytest
from graphs import prepared, trials

from onnxslim_bert.graph.download import download_bytes
from onnxslim_bert.job.search.matrix_bits import MatrixBits, packings
from onnxslim_bert.job.search.packings import measure_bits
from onnxslim_bert.job.search.precisions import Int8Trials, static
from onnxslim_bert.job.search.tables import before_int8
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.pack_weights import PackWeights
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.int8 import int8_matrices
from onnxslim_bert.rewriting.trials import Trials


@pytest.fixture
def fused(monkeypatch):
    monkeypatch.setattr(int8_matrices, "FEWEST", 64)
    return prepared("bert-ts17-sdpa", Canonicalize(), Fuse())


def int8_of(model: Model) -> Model:
    return Int8Trials.of(before_int8(model, trials(model)), static("minmax"), trials(model)).made()


def size(model: Model, file, *, packed: bool = False) -> int:
    model.save(file, overwrite=True)
    return download_bytes([file]) if packed else file.stat().st_size


@pytest.mark.parametrize("packed", [False, True])
def test_a_matrix_is_worth_what_its_file_shows(fused, tmp_path, packed):
    """Its damage is how far the answers are from int8's; of a site are those that its units are read or written by."""
    int8, rows = int8_of(fused), trials(fused)
    found = measure_bits(fused, "minmax", rows, packed=packed)
    assert [one.site for one in found] == [f"{kind} {i}" for i in range(3) for kind in ["heads"] * 4 + ["neurons"] * 2]
    assert [one.layers for one in found] == [(i,) for i in range(3) for _ in range(6)]
    whole, near = size(int8, tmp_path / "int8.onnx", packed=packed), Trials(int8, rows.fitting, rows.held_back)
    for number, bits in ((1, 4), (5, 2)):
        made = int8.clone()
        step = PackWeights(tuple(bits if i == number else 8 for i in range(len(found))))
        run_recipe(made, Recipe.parse(str(step)), rows)
        assert found[number].damage[bits] == pytest.approx(near.damage(made), rel=1e-3)
        saved = whole - size(made, tmp_path / "made.onnx", packed=packed)
        assert found[number].nbytes[bits] == pytest.approx(
            saved, abs=500 if packed else 250
        )  # names, and one file's header


def test_small_matrices_have_no_other_bits(fused, monkeypatch):
    monkeypatch.setattr(int8_matrices, "FEWEST", 200)
    found = measure_bits(fused, "minmax", trials(fused), packed=False)
    assert [bool(one.damage) for one in found] == [False, False, False, False, True, True] * 3


def test_bits_that_do_more_for_fewer_bytes_are_left_out():
    """What is left lies on a convex line, from all bits down."""
    one = MatrixBits("", (), {4: 0.3, 3: 0.2, 2: 0.9}, {4: 100.0, 3: 150.0, 2: 140.0})
    assert one.hull() == [(8, 0.0, 0.0), (3, pytest.approx(0.04), 150.0)]
    assert MatrixBits("", (), {}, {}).hull() == [(8, 0.0, 0.0)]
    assert MatrixBits("", (), {4: 0.1}, {4: -5.0}).hull() == [(8, 0.0, 0.0)]


def test_bits_of_a_site_go_in_the_order_of_their_price():
    """Every choice is the best of all combinations that save as much."""
    rng = np.random.default_rng(3)
    matrices = {
        number: MatrixBits("x", (), {4: low, 3: 3 * low, 2: 8 * low}, {4: 100.0, 3: 130.0, 2: 150.0})
        for number, low in zip((4, 2, 7), rng.uniform(0.1, 1, 3).tolist(), strict=True)
    }
    found = packings(matrices)
    assert found[-1].bits == ()
    assert [one.nbytes for one in found] == sorted((one.nbytes for one in found), reverse=True)
    assert found[0].bits == ((2, 2), (4, 2), (7, 2))
    choices = [[(0.0, 0.0), *((one.damage[b] ** 2, one.nbytes[b]) for b in (4, 3, 2))] for one in matrices.values()]
    every = [np.sum(chosen, 0) for chosen in itertools.product(*choices)]
    for one in found:
        assert one.square == pytest.approx(min(square for square, saved in every if saved >= one.nbytes - 1e-6))
