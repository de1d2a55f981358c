"""Two thin matrices in place of the word table: as near to it as their rank allows, nearest for frequent tokens."""

import numpy as np
import pytest
from graphs import DISTINCT, FAMILIES, SOME, apply, batches, every_padding, prepared, reference
from int8_oracles import assert_runs_in_integers
from oracles import assert_layers, assert_same_outputs, matrix

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.inspection.encoder_facts import encoder_facts
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.factorize_embedding import FactorizeEmbedding
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.smooth import Smooth
from onnxslim_bert.passes.split_outliers import SplitOutliers
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context

CANONICAL, FUSE = Canonicalize(), Fuse()
PROJECTED = ("albert", "electra")
WHOLE = tuple(name for name in DISTINCT if name.split("-")[0] not in PROJECTED)
SOME_WHOLE = tuple(name for name in SOME if name.split("-")[0] not in PROJECTED)


def restored(model):
    """The word table [vocab, hidden] that the factors stand for."""
    embeddings = model.encoder.embeddings
    projection = embeddings.projection
    return model.array(embeddings.word) @ matrix(model, projection) + model.array(projection.bias)


def weights_of(model, smoothing):
    """How much each row of the word table counts: its tokens in `batches` that are no padding, and the smoothing."""
    ids = np.concatenate([b.feeds[model.encoder.embeddings.ids][b.mask] for b in batches(model)])
    return np.bincount(ids, minlength=len(model.array(model.encoder.embeddings.word))) + smoothing


def weighted_error(model, before, smoothing=0.1):
    """The squared error of the table, each row weighted, and the squares of the centred table's singular values."""
    table, weights = before.array(before.encoder.embeddings.word).astype(np.float64), weights_of(before, smoothing)
    share = weights / weights.sum()
    error = share @ np.square(restored(model) - table).sum(1)
    return error, np.linalg.svd(np.sqrt(share)[:, None] * (table - share @ table), compute_uv=False) ** 2


@pytest.mark.parametrize("name", WHOLE)
def test_the_full_rank_answers_the_same(name):
    before = prepared(name, CANONICAL)
    model = prepared(name, CANONICAL, FactorizeEmbedding(rank=12))
    assert_same_outputs(model, before, every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME_WHOLE)
def test_the_error_is_the_tail_of_the_weighted_singular_values(name):
    model = prepared(name, CANONICAL, FactorizeEmbedding(rank=5))
    error, squares = weighted_error(model, prepared(name, CANONICAL))
    assert error == pytest.approx(squares[5:].sum(), rel=1e-4)


@pytest.mark.parametrize("name", SOME_WHOLE)
@pytest.mark.parametrize("steps", [(CANONICAL,), (CANONICAL, FUSE), (CANONICAL, Fuse(style="standard"))])
def test_the_encoder_is_found_as_before(name, steps):
    """With narrower words, and a projection of its own."""
    before = prepared(name, *steps)
    model = prepared(name, *steps, FactorizeEmbedding(rank=5))
    embeddings = model.encoder.embeddings
    assert model.array(embeddings.word).shape == (37, 5)
    assert (embeddings.projection.d_in, embeddings.projection.d_out) == (5, 12)
    assert embeddings.position == before.encoder.embeddings.position
    assert embeddings.token_type == before.encoder.embeddings.token_type
    assert model.encoder.layers == before.encoder.layers
    assert encoder_facts(model).tables["word"].width == 5


def test_frequent_tokens_keep_their_vectors():
    """Better than without weights, which is what a large smoothing gives."""
    before = prepared("bert-ts17-eager", CANONICAL)
    table, seen = before.array(before.encoder.embeddings.word), weights_of(before, 0)
    errors = []
    for smoothing in (0.1, 1e6):
        model = prepared("bert-ts17-eager", CANONICAL, FactorizeEmbedding(rank=5, smoothing=smoothing))
        errors.append(np.square(restored(model) - table).sum(1))
    frequent = seen >= np.sort(seen)[-8]
    assert errors[0][frequent].mean() < 0.8 * errors[1][frequent].mean()
    assert errors[0].mean() > errors[1].mean()


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.8])
def test_energy_gives_the_least_rank_that_keeps_it(energy):
    model = prepared("bert-ts17-eager", CANONICAL)
    change = apply(FactorizeEmbedding(energy=energy), model)
    error, squares = weighted_error(model, prepared("bert-ts17-eager", CANONICAL))
    rank = change.details["rank"]
    assert squares[: rank - 1].sum() < energy * squares.sum() <= squares[:rank].sum()
    assert change.details["error"] == pytest.approx(np.sqrt(error / squares.sum()), rel=1e-3)


def test_a_size_is_not_exceeded():
    """5 columns of 37 + 12 floats are 980 bytes."""
    for size, rank in ((980e-6, 5), (1175e-6, 5), (1176e-6, 6)):
        model = prepared("bert-ts17-eager", CANONICAL, FactorizeEmbedding(size=size))
        assert model.array(model.encoder.embeddings.word).shape == (37, rank)


@pytest.mark.parametrize("name", SOME_WHOLE)
@pytest.mark.parametrize("form", ["contrib", "qdq"])
def test_int8_holds_both_factors(name, form):
    """Rows of `left` with a scale each, and the projection as an integer product."""
    style = FUSE if form == "contrib" else Fuse(style="standard")
    before = prepared(name, CANONICAL, style, FactorizeEmbedding(rank=5))
    model = prepared(name, CANONICAL, style, FactorizeEmbedding(rank=5), QuantizeStatic(format=form))
    embeddings, left = model.encoder.embeddings, before.array(before.encoder.embeddings.word)
    rows = model.array(embeddings.word)
    assert rows.dtype == np.int8
    assert embeddings.projection.quantized
    scales = [c.values for c in model.constants().values() if c.values.shape == (37, 1)]
    assert any((np.abs(rows * s - left) <= s / 2 * (1 + 1e-5)).all() for s in scales)
    assert_runs_in_integers(model)
    assert encoder_facts(model).tables["word"].dtype == "int8"


def test_other_passes_follow():
    model = prepared(
        "bert-ts17-sdpa", CANONICAL, FUSE, FactorizeEmbedding(rank=5), FirstToken(), SplitOutliers(), Smooth(), Unpad()
    )
    before = prepared("bert-ts17-sdpa", CANONICAL, FUSE, FactorizeEmbedding(rank=5))
    assert_same_outputs(model, before, every_padding(model), atol=0.05)
    assert apply(QuantizeDynamic(), prepared("bert-ts17-sdpa", CANONICAL, FactorizeEmbedding(rank=5)))


def test_the_pass_may_come_before_or_after_fusing():
    steps = [FactorizeEmbedding(rank=5), FUSE]
    models = [prepared("bert-ts17-eager", CANONICAL, *order) for order in (steps, steps[::-1])]
    assert_same_outputs(models[0], models[1], every_padding(models[0]), atol=1e-5)
    assert len(models[0].graph.nodes) == len(models[1].graph.nodes)
    assert_layers(models[0], reference("bert-ts17-eager"))


@pytest.mark.parametrize("family", PROJECTED)
def test_embeddings_that_have_factors_are_left(family):
    model = prepared(f"{family}-ts17-eager", CANONICAL)
    before = model.fingerprint()
    change = apply(FactorizeEmbedding(rank=5), model)
    assert (bool(change), change.note) == (False, "the embeddings have factors already: width 10, projected to 12")
    assert model.fingerprint() == before


def test_a_second_time_finds_nothing_to_do():
    model = prepared("bert-ts17-eager", CANONICAL, FactorizeEmbedding(rank=5))
    assert "factors already: width 5" in apply(FactorizeEmbedding(rank=3), model).note


@pytest.mark.parametrize("name", ["bert-mlm-tied", "bert-mlm"])
def test_a_table_that_a_decoder_uses_is_left(name):
    model = prepared(name, CANONICAL)
    before = model.fingerprint()
    change = apply(FactorizeEmbedding(rank=5), model)
    assert not change
    assert change.note.startswith("the word table is the matrix at node ")
    assert model.fingerprint() == before


def test_factors_larger_than_the_table_are_not_written():
    """Random tables have no low rank."""
    change = apply(FactorizeEmbedding(energy=1), prepared("bert-ts17-eager", CANONICAL))
    assert (bool(change), change.note) == (False, "it takes rank 12 of 12, and factors larger than the table itself")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0 is not 1 or more"),
        ({"energy": 1.5}, "energy=1.5 is not in \\(0, 1\\]"),
        ({"size": 0}, "size=0 is not above 0"),
        ({"rank": 3, "energy": 0.5}, "rank and energy are given; give one of rank, energy and size"),
        ({"smoothing": 0}, "smoothing=0 is not above 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(PassError, match=message):
        FactorizeEmbedding(**options)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (FactorizeEmbedding(rank=13), "rank=13 is not within 1 and 12, the width of the word table"),
        (FactorizeEmbedding(size=1e-4), "size=0.0001 MB is rank 0, which is not within 1 and 12"),
    ],
)
def test_an_impossible_rank_is_refused(step, message):
    with pytest.raises(PassError, match=message):
        apply(step, prepared("bert-ts17-eager", CANONICAL))


@pytest.mark.parametrize(("step", "dtype"), [(QuantizeStatic(), "int8"), (Float16(), "float16")])
def test_a_table_that_is_not_float32_is_refused(step, dtype):
    with pytest.raises(PassError, match=f"is {dtype}; start from the float32 model"):
        apply(FactorizeEmbedding(rank=5), prepared("bert-ts17-eager", CANONICAL, FUSE, step))


def test_ids_that_are_mapped_to_rows_count_for_their_rows():
    """A graph that looks rows up through a map of ids, as a trimmed vocabulary has it."""
    model = prepared("bert-ts17-eager", CANONICAL)
    order = np.random.default_rng(0).permutation(37)
    mapped = with_id_map(model, order)
    assert mapped.encoder.embeddings.map is not None
    apply(FactorizeEmbedding(rank=5), mapped)
    apply(FactorizeEmbedding(rank=5), model)
    assert_same_outputs(mapped, model, every_padding(model), atol=1e-5)


def with_id_map(model: Model, order):
    """`model` with the rows of its word table in another order, and the map from ids to them."""
    mapped = model.clone()
    word = mapped.encoder.embeddings.word
    build = Builder(mapped.graph, "map")
    node = mapped.graph.tensors()[word].outputs[0]
    rows = build.node("Gather", "rows", [build.constant("map", np.argsort(order)), node.inputs[1]], axis=0)
    table = build.constant("table", mapped.array(word)[order])
    redirect(mapped.graph, node.outputs[0], build.node("Gather", "words", [table, rows], axis=0))
    mapped.changed()
    return mapped


def test_calibration_is_asked_for_only_where_it_is_used():
    assert list(FactorizeEmbedding().wants(prepared("bert-ts17-eager", CANONICAL))) == [Want("input_ids", "counts")]
    model = prepared("albert-ts17-eager", CANONICAL)
    assert not list(FactorizeEmbedding().wants(model))
    assert not FactorizeEmbedding().apply(model, Context())


def test_every_family_is_either_factorized_or_told():
    for family in FAMILIES:
        change = apply(FactorizeEmbedding(rank=5), prepared(f"{family}-ts17-eager", CANONICAL))
        assert bool(change) is (family not in PROJECTED)
