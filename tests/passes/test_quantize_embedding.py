"""A few bits an entry of the word table: what is unpacked is what was packed, and nothing else changes."""

import re

import numpy as np
import pytest
from graphs import DISTINCT, SOME, apply, every_padding, prepared
from oracles import assert_same_outputs

from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.passes import quantize_embedding
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_embedding import QuantizeEmbedding, decoded
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.trim_vocabulary import TrimVocabulary
from onnxslim_bert.rewriting.weights import codebooks
from onnxslim_bert.rewriting.weights.packed_rows import pack_rows

CANONICAL, FUSE = Canonicalize(), Fuse()


def with_restored_table(name, *steps, bits=4, block=8):
    """The model after `steps` whose word table holds what its packed form stands for."""
    model = prepared(name, *steps)
    word = model.encoder.embeddings.word
    model.replace(word, pack_rows(model.array(word), bits, block).restored())
    return model


@pytest.mark.parametrize("name", DISTINCT)
def test_the_graph_unpacks_what_was_packed(name):
    """Whichever exporter and opset: the same answers as with a float table of the restored values."""
    model = prepared(name, CANONICAL, QuantizeEmbedding(block=8))
    assert_same_outputs(model, with_restored_table(name, CANONICAL), every_padding(model), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("block", [8, 16])
def test_every_number_of_bits_and_block(bits, block):
    model = prepared("bert-ts13-eager", CANONICAL, QuantizeEmbedding(bits, block))
    exact = with_restored_table("bert-ts13-eager", CANONICAL, bits=bits, block=block)
    assert_same_outputs(model, exact, every_padding(model), atol=1e-5)


@pytest.mark.parametrize("name", SOME)
def test_the_encoder_is_found_as_before_and_the_rest_becomes_int8(name):
    before = prepared(name, CANONICAL, FUSE)
    model = prepared(name, CANONICAL, FUSE, QuantizeEmbedding(block=8))
    found, was = model.encoder.embeddings, before.encoder.embeddings
    assert (found.ids, found.vocabulary) == (was.ids, was.vocabulary)
    assert (found.position, found.token_type) == (was.position, was.token_type)
    assert model.encoder.layers == before.encoder.layers
    packed = model.array(found.word)
    assert (packed.dtype, packed.shape[0]) == (np.uint8, was.vocabulary)
    quantized = prepared(name, CANONICAL, FUSE, FirstToken(), QuantizeEmbedding(block=8), QuantizeStatic())
    kept = quantized.array(quantized.encoder.embeddings.word)
    assert np.array_equal(kept, packed)


CODEBOOKS = [
    QuantizeEmbedding(bits=4, codebook="product"),
    QuantizeEmbedding(bits=2, codebook="residual"),
    QuantizeEmbedding(bits=3, codebook="additive", codes=3),
]


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("step", CODEBOOKS)
def test_codebooks_with_an_entry_for_every_token_change_nothing(name, step):
    """The fixtures' tables have fewer rows than a codebook has entries, so every row is kept."""
    model = prepared(name, CANONICAL, step)
    assert_same_outputs(model, prepared(name, CANONICAL), every_padding(model), atol=1e-5)
    assert model.array(model.encoder.embeddings.word).dtype == np.uint8
    assert model.encoder.embeddings.position == prepared(name, CANONICAL).encoder.embeddings.position


@pytest.mark.parametrize("step", CODEBOOKS)
def test_the_graph_adds_up_what_the_codes_stand_for(step, monkeypatch):
    """With three entries a codebook: the same answers as with a float table of the restored values."""
    monkeypatch.setattr(codebooks, "ENTRIES", 3)
    made = []
    monkeypatch.setattr(quantize_embedding, "decoded", lambda *given: made.append(given[2]) or decoded(*given))
    model, exact = (prepared("bert-dynamo20-sdpa", CANONICAL, FUSE) for _ in range(2))
    change = apply(step, model)
    assert change.details["error"] > 0.1
    exact.replace(exact.encoder.embeddings.word, made[0].restored())
    assert_same_outputs(model, exact, every_padding(model), atol=1e-5)


def test_codebooks_count_rows_as_texts_use_them_through_a_map():
    steps = CANONICAL, TrimVocabulary(tokens=19)
    model = prepared("bert-ts17-sdpa", *steps, CODEBOOKS[0])
    assert_same_outputs(model, prepared("bert-ts17-sdpa", *steps), every_padding(model), atol=1e-5)


def test_a_trimmed_vocabulary_reads_packed_rows_through_its_map():
    steps = CANONICAL, TrimVocabulary(tokens=19)
    model = prepared("bert-ts17-sdpa", *steps, QuantizeEmbedding(block=8))
    exact = with_restored_table("bert-ts17-sdpa", *steps)
    assert_same_outputs(model, exact, every_padding(model), atol=1e-5)
    assert model.encoder.embeddings.vocabulary == 37


def test_the_file_shrinks_by_what_the_note_says():
    model = prepared("bert-ts17-eager", CANONICAL)
    change = apply(QuantizeEmbedding(block=8), model)
    assert 0.01 < change.details["error"] < 0.2
    assert re.fullmatch(r"0\.0 -> 0\.0 MB, relative error 0\.\d{3}", change.note)


def test_a_table_that_is_packed_or_tied_stays_as_it_is():
    packed = prepared("bert-ts17-eager", CANONICAL, QuantizeEmbedding(block=8))
    change = apply(QuantizeEmbedding(), packed)
    assert (change.count, change.note) == (0, "the word table is uint8 already; start from the float32 model")
    tied = prepared("bert-ts17-eager", CANONICAL)
    table = tied.graph.tensors()[tied.encoder.embeddings.word]
    whole = Builder(tied.graph, "tied").node("Transpose", "head", [table], perm=[1, 0])
    whole.dtype = np.float32
    tied.graph.outputs.append(whole)
    tied.changed()
    change = apply(QuantizeEmbedding(), tied)
    assert (change.count, change.note) == (0, "the word table is read at node 'tied/head' too, which needs it whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5}, "bits=5 is not one of 4, 3, 2"),
        ({"bits": 1}, "bits=1 is not one of 4, 3, 2"),
        ({"bits": 5, "codebook": "product"}, "bits=5 is not one of 4, 3, 2, 1"),
        ({"block": 12}, "block=12 is not a multiple of 8, from 8 up"),
        ({"codebook": "sum"}, "codebook='sum' is not one of none, product, residual, additive"),
        ({"codebook": "additive", "codes": 0}, "codes=0 is not 1 or more"),
        ({"codebook": "product", "bits": 3}, "8 bits of codes for a group are no whole number of columns at bits=3"),
        ({"codebook": "residual", "smoothing": 0.0}, "smoothing=0.0 is not above 0"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(PassError, match=f"quantize-embedding: {message}"):
        QuantizeEmbedding(**options)
