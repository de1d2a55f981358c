"""Weights that are int8 again when a session is made are those that were packed; the graph that runs is the same."""

import contextlib
from collections import Counter

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import apply, every_padding, prepared, trials
from oracles import answers, assert_same_outputs, optimized

from onnxslim_bert.errors import NoEncoderError, PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.model import narrow_weights
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.pack_weights import PackWeights
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.rewriting.int8 import int8_matrices
from onnxslim_bert.rewriting.int8.blockwise import round_blocks
from onnxslim_bert.rewriting.int8.packed_weight import PackedWeight

CANONICAL, FUSE = Canonicalize(), Fuse()
QUANTIZED = [QuantizeStatic(), QuantizeDynamic(), QuantizeStatic(format="qdq")]
NAMES = ("bert-ts17-sdpa", "albert-ts14-sdpa", "prenorm-dynamo18-eager")


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch):
    """The fixtures have no large ones."""
    monkeypatch.setattr(int8_matrices, "FEWEST", 16)


def matrix(rows, columns, seed=0):
    """An int8 matrix, one column of it zero."""
    values = np.random.default_rng(seed).normal(0, 40, (rows, columns)).clip(-127, 127).astype(np.int8)
    values[:, -1] = 0
    return values


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("rows", [16, 32, 37, 5])
def test_what_the_nodes_compute_is_what_was_packed(bits, rows):
    """Bit for bit, also where the last block is not full."""
    values = matrix(rows, 7)
    packed = PackedWeight.of(round_blocks(values.astype(np.float32), bits, 16))
    graph = gs.Graph(opset=21)
    restored = packed.write(Builder(graph, ""))
    restored.dtype, restored.shape = np.dtype(np.int8), list(values.shape)
    graph.outputs = [restored]
    (found,) = answers(Model.from_proto(gs.export_onnx(graph)), [{}])
    assert found[restored.name].dtype == np.int8
    np.testing.assert_array_equal(found[restored.name], packed.restored)
    step = np.ptp(values.astype(int), 0) / ((1 << bits) - 1)
    assert (np.abs(packed.restored.astype(int) - values) <= step + 1).all()


def test_with_as_many_levels_as_steps_nothing_is_lost():
    values = np.tile(np.arange(-8, 8, dtype=np.int8)[:, None] * 15, (1, 3))
    packed = PackedWeight.of(round_blocks(values.astype(np.float32), 4, 16))
    np.testing.assert_array_equal(packed.restored, values)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quantize", QUANTIZED, ids=str)
def test_it_answers_as_int8_with_the_restored_weights(name, quantize):
    """And ONNX Runtime runs the same graph: int8 products of constants, nothing of what restores them."""
    before = prepared(name, CANONICAL, FUSE, quantize)
    model, exact = before.clone(), before.clone()
    step = PackWeights((4,), 16, "nearest")
    assert apply(step, model)
    for matrix in int8_matrices.int8_matrices(before):
        restored = int8_matrices.pack(matrix.values(before), None, 4, 16).restored
        exact.replace(matrix.weight, np.ascontiguousarray(restored.T if matrix.trans_b else restored))
    assert_same_outputs(model, exact, every_padding(before), atol=1e-5)
    ours, theirs = (optimized(one) for one in (model, exact))
    assert Counter(node.op_type for node in ours.node) == Counter(node.op_type for node in theirs.node)
    assert Counter(x.data_type for x in ours.initializer) == Counter(x.data_type for x in theirs.initializer)


@pytest.mark.parametrize("name", NAMES)
def test_folded_again_the_encoder_is_read(name):
    before = prepared(name, CANONICAL, FUSE, QuantizeStatic())
    model = before.clone()
    apply(PackWeights((4,), 16, "nearest"), model)
    apply(CANONICAL, model)
    assert [list(layer.linears) for layer in model.encoder.layers] == [list(x.linears) for x in before.encoder.layers]
    assert all(linear.quantized for layer in model.encoder.layers for linear in layer.linears.values())


def test_what_is_stored_in_fewer_bits_is_told(monkeypatch):
    """The matrices, by the names and the sizes that they have once they are folded, and not their scales."""
    monkeypatch.setattr(narrow_weights, "WORTH", 1)
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE, QuantizeStatic())
    assert not narrow_weights.narrow_weights(model.graph)
    apply(PackWeights((3,), 16, "nearest"), model)
    found = {weight.name: weight for weight in narrow_weights.narrow_weights(model.graph)}
    assert {weight.dtype for weight in found.values()} == {"int8 in 3 bits"}
    apply(CANONICAL, model)
    every = int8_matrices.int8_matrices(model)
    assert {matrix.weight: matrix.size for matrix in every} == {name: one.wide for name, one in found.items()}


def test_gptq_is_nearer_to_the_int8_model_than_rounding():
    """In the mean of models with a dozen inputs a matrix, of which one alone can go either way."""
    shares = []
    for name in (*NAMES, "bert-dynamo20-eager", "distilbert-dynamo20-sdpa", "electra-dynamo20-eager"):
        before = prepared(name, CANONICAL, FUSE, QuantizeStatic())
        damages = []
        for rounding in ("gptq", "nearest"):
            model = before.clone()
            apply(PackWeights((4,), 16, rounding), model)
            damages.append(trials(before).damage(model))
        shares.append(damages[0] / damages[1])
    assert np.exp(np.mean(np.log(shares))) < 0.9, shares


def test_shared_weights_are_packed_once():
    before = prepared("albert-ts14-sdpa", CANONICAL, FUSE, QuantizeStatic())
    model = before.clone()
    done = apply(PackWeights((4,), 16), model)
    every = int8_matrices.int8_matrices(before)
    assert done.count == len(every) < sum(len(matrix.readers) for matrix in every)


def test_a_float_model_is_left_alone():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE)
    before = model.fingerprint()
    done = apply(PackWeights(), model)
    assert not done
    assert done.note.endswith("quantize-static writes them")
    assert model.fingerprint() == before


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"bits": (8,)}, "bits=8 is not one of 4, 3, 2"),
        ({"bits": (4, 5)}, "bits=5 is not one of 8, 4, 3, 2"),
        ({"bits": ()}, "bits=0 is not one of 4, 3, 2"),
        ({"block": 24}, "block=24 is not a power of two from 16 up"),
        ({"rounding": "hqq"}, "rounding='hqq' is not one of gptq, nearest"),
    ],
)
def test_it_refuses_other_options(options, refusal):
    with pytest.raises(PassError, match=f"^pack-weights: {refusal}$"):
        PackWeights(**options)


def test_it_refuses_weights_whose_sums_would_leave_16_bits():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE, QuantizeStatic(reduce_range=True))
    with pytest.raises(PassError, match="keeps sums of two products within 16 bits"):
        apply(PackWeights((4,), 16, "nearest"), model)


def test_each_matrix_takes_the_bits_that_it_is_given():
    """As if it alone was packed; one of 8 bits stays, and so do small ones, which are counted."""
    before = prepared("bert-ts17-sdpa", CANONICAL, FUSE, QuantizeStatic())
    model, exact = before.clone(), before.clone()
    every = int8_matrices.int8_matrices(before)
    bits = [(8, 4, 3, 2)[i % 4] for i in range(len(every))]
    done = apply(PackWeights(tuple(bits), 16, "nearest"), model)
    assert done.count == sum(width < 8 for width in bits)
    for matrix, width in zip(every, bits, strict=True):
        if width < 8:
            restored = int8_matrices.pack(matrix.values(before), None, width, 16).restored
            exact.replace(matrix.weight, np.ascontiguousarray(restored.T if matrix.trans_b else restored))
    assert_same_outputs(model, exact, every_padding(before), atol=1e-5)


def test_it_refuses_bits_for_another_number_of_matrices():
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE, QuantizeStatic())
    count = len(int8_matrices.int8_matrices(model))
    with pytest.raises(
        PassError, match=rf"^pack-weights: bits=4/3 are for 2, and the model has {count} int8 matrices$"
    ):
        apply(PackWeights((4, 3)), model)


def test_where_some_matrices_are_packed_no_encoder_is_read():
    """And it is said, also where branches with and without a mask read the layers in between."""
    model = prepared("bert-ts17-sdpa", CANONICAL, FUSE, FirstToken(), QuantizeStatic(), SkipMask())
    count = len(int8_matrices.int8_matrices(model))
    for kept in range(0, count, 3):
        packed = model.clone()
        apply(PackWeights(tuple(8 if i < kept else 4 for i in range(count)), 16, "nearest"), packed)
        with contextlib.suppress(NoEncoderError):
            assert packed.encoder.layers
        apply(CANONICAL, packed)
        assert len(packed.encoder.layers) == len(model.encoder.layers)
