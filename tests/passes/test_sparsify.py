"""The asked share of each matrix is zero, the rest is what it was, and int8 keeps the zeros."""

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, batches, feeds, prepared
from oracles import answers, matrix

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.collect import collect
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.sparsify import Sparsify, deflated, matrices

CANONICAL, FUSE, STATIC = Canonicalize(), Fuse(), QuantizeStatic()
SHARE, SHARE_BY_MAGNITUDE = Sparsify(share=0.3), Sparsify(share=0.3, score="magnitude")
TWO_OF_FOUR = Sparsify(pattern="2:4")


def dense(before: Model, after: Model) -> dict[str, tuple[Array, Array]]:
    """The matrices [d_in, d_out] that may become sparse, before and after, by weight."""
    return {name: (matrix(before, sharing[0]), matrix(after, sharing[0])) for name, sharing in matrices(before).items()}


@pytest.mark.parametrize(
    ("name", "step"), [*((name, SHARE_BY_MAGNITUDE) for name in DISTINCT), *((name, SHARE) for name in SOME)]
)
def test_exactly_the_share_is_zero_in_each_output_and_the_rest_is_kept(name, step):
    before, model = prepared(name, CANONICAL), prepared(name, CANONICAL, step)
    for weight, (old, new) in dense(before, model).items():
        assert ((new == 0).sum(0) == round(0.3 * len(new))).all(), weight
        assert (new[new != 0] == old[new != 0]).all(), weight


@pytest.mark.parametrize("name", SOME)
def test_at_most_two_of_four_inputs_stay(name):
    before, model = prepared(name, CANONICAL), prepared(name, CANONICAL, TWO_OF_FOUR)
    for weight, (old, new) in dense(before, model).items():
        for start in range(0, len(new), 4):
            group = new[start : start + 4]
            assert ((group != 0).sum(0) == min(2, len(group))).all(), weight
        assert (new[new != 0] == old[new != 0]).all(), weight


@pytest.mark.parametrize("name", ["bert-ts17-eager", "prenorm-dynamo18-eager"])
def test_only_dense_matrices_change(name):
    """Biases, norms, embeddings and the small task head are the same arrays."""
    before, model = prepared(name, CANONICAL), prepared(name, CANONICAL, SHARE)
    changed = {n for n, constant in model.constants().items() if (constant.values != before.array(n)).any()}
    assert changed == {linear.weight for layer in model.encoder.layers for linear in layer.linears.values()}


def test_a_matrix_that_is_the_word_table_too_stays():
    """A masked-word head tied to the embedding."""
    model = prepared("bert-mlm-tied", CANONICAL)
    tables = set(model.encoder.embeddings.tables.values())
    before = {name: model.array(name).copy() for name in tables}
    assert apply(SHARE_BY_MAGNITUDE, model)
    assert all((model.array(name) == values).all() for name, values in before.items())


def test_small_weights_go_and_so_do_those_of_quiet_inputs():
    """By the formula, on the statistics that the pass asked for."""
    before = prepared("bert-ts17-eager", CANONICAL)
    up = before.encoder.layers[1].linears["up"]
    weight, square = matrix(before, up), collect(before, [Want(up.source, "square")], batches(before))
    for step, scores in (
        (SHARE_BY_MAGNITUDE, np.abs(weight)),
        (SHARE, np.abs(weight) * np.sqrt(square[Want(up.source, "square")])[:, None]),
    ):
        zero = matrix(prepared("bert-ts17-eager", CANONICAL, step), up) == 0
        for column in range(up.d_out):
            assert scores[zero[:, column], column].max() < scores[~zero[:, column], column].min()


def test_wanda_loses_less_of_what_a_layer_gives_than_magnitude():
    """The squared error of the products on calibration rows, over all layers."""
    before = prepared("bert-ts17-eager", CANONICAL)
    linears = [linear for sharing in matrices(before).values() for linear in sharing]
    rows = collect(before, [Want(linear.source, "sample") for linear in linears], batches(before))

    def error(step: Sparsify) -> float:
        model = prepared("bert-ts17-eager", CANONICAL, step)
        return sum(product_change(before, model, linear, rows[Want(linear.source, "sample")]) for linear in linears)

    assert error(SHARE) < error(SHARE_BY_MAGNITUDE)


def product_change(before: Model, model: Model, linear: Linear, rows: Array) -> float:
    return float(np.square(rows @ (matrix(model, linear) - matrix(before, linear))).sum())


@pytest.mark.parametrize("name", ["albert-ts13-eager", "albert-dynamo20-sdpa"])
def test_a_shared_matrix_stays_one_and_is_thinned_once(name):
    """With the scores of all the layers that share it."""
    before, model = prepared(name, CANONICAL), prepared(name, CANONICAL, SHARE)
    assert [len(sharing) for sharing in matrices(model).values()].count(3) == 6
    ups = [layer.linears["up"] for layer in before.encoder.layers]
    squares = collect(before, [Want(up.source, "square") for up in ups], batches(before))
    scores = sum(np.abs(matrix(before, up)) * np.sqrt(squares[Want(up.source, "square")])[:, None] for up in ups)
    zero = matrix(model, model.encoder.layers[0].linears["up"]) == 0
    for column in range(zero.shape[1]):
        assert scores[zero[:, column], column].max() < scores[~zero[:, column], column].min()


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "contrib") for name in SOME), ("bert-ts13-eager", "qdq"), ("albert-ts14-sdpa", "qdq")]
)
def test_zeros_are_zeros_in_int8(name, form):
    style = FUSE if form == "contrib" else Fuse(style="standard")
    sparse = prepared(name, CANONICAL, style, SHARE)
    model = prepared(name, CANONICAL, style, SHARE, QuantizeStatic(format=form))
    for old, new in zip(sparse.encoder.layers, model.encoder.layers, strict=True):
        for role, linear in old.linears.items():
            integers = model.array(new.linears[role].weight)
            assert integers.dtype == np.int8
            assert (integers[matrix(sparse, linear) == 0] == 0).all(), role


@pytest.mark.parametrize("step", [SHARE, TWO_OF_FOUR], ids=str)
def test_the_note_says_what_it_buys(step):
    """Deflated sizes, measured; a second time finds the same zeros and says so."""
    model = prepared("bert-ts17-eager", CANONICAL)
    before = sum(deflated(model.array(name)) for name in matrices(model))
    change = apply(step, model)
    after = sum(deflated(model.array(name)) for name in matrices(model))
    assert change.count == len(matrices(model)) == 18
    assert after < before
    assert f"deflated {before / 1e6:.2f} -> {after / 1e6:.2f} MB" in change.note
    assert "the file keeps its size, the CPU its speed" in change.note


def test_a_second_time_changes_nothing_and_says_so():
    model = prepared("bert-ts17-eager", CANONICAL, SHARE_BY_MAGNITUDE)
    change = apply(SHARE_BY_MAGNITUDE, model)
    assert (bool(change), change.note) == (False, "every matrix has these zeros already")


def test_the_model_still_answers():
    model = prepared("bert-ts17-eager", CANONICAL, FUSE, TWO_OF_FOUR)
    (held,) = answers(model, [feeds(model)])
    assert np.isfinite(held["logits"]).all()


@pytest.mark.parametrize("step", [STATIC, Float16()], ids=["int8", "float16"])
def test_only_float32_models_are_thinned(step):
    with pytest.raises(PassError, match="start from the float"):
        apply(SHARE, prepared("bert-ts17-eager", CANONICAL, FUSE, step))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "sparsify: share=0.0 is not between 0 and 1"),
        ({"share": 1.0}, "sparsify: share=1.0 is not between 0 and 1"),
        ({"score": "taylor"}, "sparsify: score='taylor' is not one of wanda, magnitude"),
        ({"pattern": "1:2"}, "sparsify: pattern='1:2' is not one of unstructured, 2:4"),
        ({"pattern": "2:4", "share": 0.7}, "2:4 leaves half of the weights, so share=0.7 does nothing; leave it out"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(PassError, match=message):
        Sparsify(**options)
