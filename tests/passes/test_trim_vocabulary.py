"""Texts of kept tokens are answered bit for bit as before, with the map in the graph and with a new tokenizer."""

import functools
import json
from collections.abc import Collection

import numpy as np
import pytest
import tokenizers
from graphs import DISTINCT, SOME, batches, every_padding, feeds, fixture, prepared, trials
from oracles import answers, assert_same_answers, assert_same_outputs

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.vocabulary import protected_ids
from onnxslim_bert.errors import PassError
from onnxslim_bert.job.rewrite_tokenizer import rewrite_tokenizer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.trim_vocabulary import TrimVocabulary, choose_tokens, kept_tokens, nearest_rows
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Change, Context

CANONICAL = Canonicalize()
SPECIAL = ("[PAD]", "<pad>", "[UNK]", "[CLS]", "[SEP]")
UNUSED = range(6, 9)  # ids below those that fixtures are fed, so that most ids are renumbered
VOCABULARY = 37


def trim(model: Model, protected: Collection[int] = range(5), **options: int) -> Change:
    """Let trim-vocabulary rewrite `model`, calibrated on rows without the tokens `UNUSED`."""
    step = TrimVocabulary(**options)
    on_rows = trials(model, frozenset(protected))
    for batch in on_rows.fitting:
        for values in batch.feeds.values():
            values[np.isin(values, UNUSED)] = 5
    return step.apply(model, Context(on_rows.collect(model, step.wants(model)), on_rows))


def trimmed(name: str, protected: Collection[int] = range(5), **options: int) -> tuple[Model, Model, Array]:
    """The fixture `name` before and after trim-vocabulary, and the ids with rows of their own."""
    before = prepared(name, CANONICAL)
    model = before.clone()
    assert trim(model, protected, **options)
    return before, model, kept_tokens(model.array(model.encoder.embeddings.map))


def with_ids(model: Model, given: dict[str, Array], allowed: Array) -> dict[str, Array]:
    """`given` with token ids drawn from `allowed` only."""
    ids = given[model.encoder.embeddings.ids]
    return given | {model.encoder.embeddings.ids: allowed[ids % len(allowed)].astype(ids.dtype)}


@functools.cache
def tokenizer_json() -> str:
    """A WordPiece tokenizer of 37 pieces: special tokens, longer pieces, single characters, longer pieces."""
    letters = "abcdefghij"
    longer = [f"{letter}{letter}" for letter in letters]
    pieces = [*SPECIAL, *longer[:8], *letters, *(f"##{letter}" for letter in letters), *longer[8:], "abc", "##abc"]
    model = tokenizers.models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(model)
    backend.add_special_tokens(list(SPECIAL))
    return backend.to_str()


@pytest.mark.parametrize("name", [*DISTINCT, "bert-nomask", "bert-dynamo23-sdpa", "fused-mha", "fused-attention"])
def test_texts_of_kept_tokens_are_answered_bit_for_bit(name):
    """With the map on old ids and without it on new ones, on every padding; the smaller table is still found."""
    before, model, kept = trimmed(name, protected_ids(tokenizer_json()))
    embeddings = model.encoder.embeddings
    assert len(model.array(embeddings.word)) == len(kept) < VOCABULARY
    assert (embeddings.vocabulary, embeddings.ids) == (VOCABULARY, before.encoder.embeddings.ids)
    assert set(embeddings.tables) == set(before.encoder.embeddings.tables)

    rewritten = model.clone()
    assert old_ids_of(rewrite_tokenizer(rewritten, tokenizer_json())).tolist() == kept.tolist()
    embeddings = rewritten.encoder.embeddings
    assert (embeddings.map, embeddings.vocabulary) == (None, len(kept))

    new = [with_ids(before, values, np.arange(len(kept))) for values in every_padding(before)]
    old = [values | {embeddings.ids: kept[values[embeddings.ids]]} for values in new]
    mapped, renumbered = answers(model, old, optimize=False), answers(rewritten, new, optimize=False)
    for number, exact in enumerate(answers(before, old, optimize=False)):
        assert_same_answers(mapped[number], exact, 0, f"map, batch {number}: ")
        assert_same_answers(renumbered[number], exact, 0, f"rewritten, batch {number}: ")


@pytest.mark.parametrize("name", SOME)
def test_a_removed_token_reads_the_row_that_the_map_gives(name):
    """Equal to the whole table with those rows written into it."""
    before, model, kept = trimmed(name, tokens=7)
    rows = model.array(model.encoder.embeddings.map)
    word = before.encoder.embeddings.word
    before.replace(word, before.array(word)[kept[rows]])
    assert len(kept) == 7
    (ours,), (theirs,) = (answers(each, [feeds(before)], optimize=False) for each in (model, before))
    assert_same_answers(ours, theirs, 0)


@pytest.mark.parametrize("name", SOME[2:4])
def test_a_map_to_one_row_hides_no_role(name):
    """Its values look like those of a token-type table's indices."""
    before, model, kept = trimmed(name, [], tokens=1)
    assert kept.tolist() == [0]
    assert model.encoder.embeddings.tables == before.encoder.embeddings.tables


@pytest.mark.parametrize("name", SOME[::2])
def test_later_passes_take_a_trimmed_model(name):
    """Fused, for one token, unpadded and in int8: as close to the trimmed float model as without the map."""
    before, model, kept = trimmed(name)
    steps = (Fuse(), FirstToken(), Unpad(), SkipMask())
    on_rows = trials(model)
    for step in steps:
        step.apply(model, Context({}, on_rows))
    given = [with_ids(before, values, kept) for values in every_padding(before)]
    assert_same_outputs(model, before, given, atol=1e-5)


@pytest.mark.parametrize("form", ["contrib", "qdq"])
@pytest.mark.parametrize("name", SOME[2:4])
def test_the_rewriting_of_an_int8_model_changes_nothing(name, form):
    """Rows and their scales follow the new ids together."""
    _, model, _ = trimmed(name)
    step = QuantizeStatic(format=form)
    step.apply(model, Context(trials(model).collect(model, step.wants(model))))
    assert model.array(model.encoder.embeddings.word).dtype == np.int8
    quantized = model.clone()
    old_ids = old_ids_of(rewrite_tokenizer(model, tokenizer_json()))
    assert model.array(model.encoder.embeddings.word).shape[0] == len(old_ids)
    ids = model.encoder.embeddings.ids
    new = with_ids(quantized, feeds(quantized), np.arange(len(old_ids)))
    (ours,), (theirs,) = answers(model, [new]), answers(quantized, [new | {ids: old_ids[new[ids]]}])
    assert_same_answers(ours, theirs, 0)


def old_ids_of(text: str) -> Array:
    """The old id of each piece of a rewritten tokenizer."""
    pieces = json.loads(tokenizer_json())["model"]["vocab"]
    return np.array([pieces[piece] for piece in json.loads(text)["model"]["vocab"]])


def test_a_trimmed_model_is_found_again_in_its_file(tmp_path):
    _, model, kept = trimmed("bert-ts17-sdpa")
    model.save(tmp_path / "m.onnx")
    loaded = Model.load(tmp_path / "m.onnx")
    assert kept_tokens(loaded.array(loaded.encoder.embeddings.map)).tolist() == kept.tolist()
    assert (tmp_path / "m.onnx").stat().st_size < fixture("bert-ts17-sdpa").stat().st_size


def test_the_share_of_held_back_tokens_that_are_gone_is_told():
    """Counted by hand over the held-back rows, padding left out."""
    model = prepared("bert-ts17-eager", CANONICAL)
    change = trim(model, tokens=9)
    kept = kept_tokens(model.array(model.encoder.embeddings.map))
    held_back = batches(model, ((4, 8), (2, 5)))
    ids = np.concatenate([batch.feeds["input_ids"][batch.mask] for batch in held_back])
    share = 1 - np.isin(ids, kept).mean()
    assert share > 0
    assert change.count == VOCABULARY - 9
    assert change.details == {"tokens": 9, "out_of_vocabulary": pytest.approx(share), "lost_scripts": {}}
    assert change.note == f"9 of 37 tokens kept; {share:.2%} of the tokens in held-back texts are not"


def test_without_a_tokenizer_the_note_says_so():
    assert "without a tokenizer special tokens are kept only" in trim(prepared("bert-ts17-eager"), []).note


@pytest.mark.parametrize(
    ("tokens", "min_count", "kept"),
    [
        (0, 1, [0, 2, 3, 5, 6]),
        (0, 3, [0, 3, 5, 6]),
        (0, 9, [0, 6]),
        (4, 1, [0, 3, 5, 6]),
        (3, 1, [0, 3, 6]),
        (6, 0, [0, 1, 2, 3, 5, 6]),
        (2, 0, [0, 6]),
    ],
)
def test_protected_ids_then_frequent_ones_then_low_ones(tokens, min_count, kept):
    """Of two as frequent the lower one stays; with min_count=0 unseen ones fill up."""
    assert choose_tokens(np.array([0, 0, 2, 5, 0, 5, 0]), [6], tokens, min_count).tolist() == kept


def test_a_removed_row_is_the_nearest_of_a_lower_id():
    """Id 4 is nearest to 5, which comes later, and reads 2."""
    table = np.array([[0.0, 0], [9, 9], [3, 0], [1, 0], [3, 2], [3, 3], [9, 8]])
    rows = nearest_rows(table, np.array([0, 2, 5]))
    assert rows.tolist() == [0, 0, 1, 0, 1, 2, 2]
    assert kept_tokens(rows).tolist() == [0, 2, 5]


def test_nearest_rows_are_those_of_a_plain_search():
    table = np.random.default_rng(0).normal(size=(2500, 3)).astype(np.float32)
    kept = np.array([0, *range(1, 2500, 7)])
    rows = nearest_rows(table, kept)
    for number in (2, 77, 2499):
        lower = kept[kept <= number]
        assert kept[rows[number]] == lower[np.square(table[lower] - table[number]).sum(1).argmin()]
    assert kept_tokens(rows).tolist() == kept.tolist()


def test_a_vocabulary_that_is_all_used_stays_and_says_so():
    model = prepared("bert-ts17-eager")
    before = model.fingerprint()
    change = trim(model, min_count=0)
    assert (bool(change), change.note) == (False, "all 37 tokens are kept")
    assert model.fingerprint() == before


def test_a_trimmed_vocabulary_is_not_trimmed_again():
    _, model, _ = trimmed("bert-ts17-eager")
    change = trim(model, tokens=7)
    assert not change
    assert change.note == "the vocabulary is trimmed already; start from the whole one for another size"


def test_a_table_that_was_not_found_is_told():
    model = prepared("fused-mha")
    assert list(TrimVocabulary().wants(model)) == []
    assert trim(model).note == "no word embedding was found"


@pytest.mark.parametrize("name", ["bert-mlm", "bert-mlm-tied"])
@pytest.mark.parametrize("steps", [(), (CANONICAL,)], ids=["as exported", "canonical"])
def test_a_language_model_is_refused(name, steps):
    with pytest.raises(PassError, match="answers with one number for each of the 37 tokens; a language model cannot"):
        trim(prepared(name, *steps))


def test_a_quantized_table_is_refused():
    with pytest.raises(PassError, match=r"the word table '.*' is uint8; start from the float32 model"):
        trim(prepared("quantized-dynamic"))


def test_no_room_for_what_must_stay_is_refused():
    with pytest.raises(PassError, match="tokens=3 has no room for the 5 special tokens and single characters; give"):
        trim(prepared("bert-ts17-eager"), tokens=3)


@pytest.mark.parametrize("option", ["tokens", "min_count"])
def test_negative_numbers_are_refused(option):
    with pytest.raises(PassError, match=f"trim-vocabulary: {option}=-1 is negative; give 0 or more"):
        TrimVocabulary(**{option: -1})


def test_a_model_without_a_map_is_not_rewritten():
    with pytest.raises(PassError, match="read without a map; run trim-vocabulary first"):
        rewrite_tokenizer(prepared("bert-ts17-eager", CANONICAL), tokenizer_json())


def test_another_model_s_tokenizer_is_refused():
    _, model, _ = trimmed("bert-ts17-eager")
    content = json.loads(tokenizer_json())
    content["added_tokens"].append({"id": 40, "content": "[X]"})
    with pytest.raises(PassError, match="the tokenizer has a token 40, the model's map 37 ids; give the model's own"):
        rewrite_tokenizer(model, json.dumps(content))


def test_a_graph_that_compares_ids_keeps_its_map():
    """RoBERTa's positions count what is not id 1; a tokenizer that would give 1 to another token does not fit it."""
    model = prepared("roberta-ts17-eager", CANONICAL)
    assert trim(model, [0, 2, 3, 4])
    assert 1 not in kept_tokens(model.array(model.encoder.embeddings.map))
    content = json.loads(tokenizer_json())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] != 1]
    content["model"]["vocab"] = {piece.replace("<pad>", "aaa"): i for piece, i in content["model"]["vocab"].items()}
    before = model.fingerprint()
    with pytest.raises(PassError, match="changes when ids do: the graph reads them besides the word table; keep the"):
        rewrite_tokenizer(model, json.dumps(content))
    assert model.fingerprint() == before
