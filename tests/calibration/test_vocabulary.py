"""A tokenizer that lost tokens splits the other texts as before, and can still write everything."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.vocabulary import (
    count_tokens,
    keep_tokens,
    pieces_of,
    protected_ids,
    read_tokenizer,
    token_growth,
)
from onnxslim_bert.errors import DataError

TEXTS = [
    "the film is as good as the book, and the actors are better than the book deserves",
    "an unwatchable bore: nobody laughs, nobody cries, nobody cares how it ends",
    "watchable enough, though the ending of the film is lost on actors who laugh too much",
    "booking a ticket was the best part of it; the director deserves worse",
]
KINDS = ("wordpiece", "bpe", "unigram")


def wordpiece() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    return backend


def bpe() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_special_tokens(["<mask>"])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def unigram() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=110, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


@pytest.fixture(scope="module")
def built() -> dict[str, str]:
    """The content of tokenizer.json by kind."""
    return {"wordpiece": wordpiece().to_str(), "bpe": bpe().to_str(), "unigram": unigram().to_str()}


def cut(content: str, texts: list[str]) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer, list[int]]:
    """The tokenizer before and after it is cut to the tokens of `texts` and the protected ones; old ids of new ones."""
    before = tokenizers.Tokenizer.from_str(content)
    used = {number for text in texts for number in before.encode(text).ids}
    smaller, old_ids = keep_tokens(json.loads(content), used | protected_ids(content))
    return before, tokenizers.Tokenizer.from_str(json.dumps(smaller)), old_ids.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_kept_tokens_are_split_as_before(built, kind):
    """Alone and as pairs, special tokens around; and tokens did go."""
    before, after, old_ids = cut(built[kind], TEXTS[:2])
    assert after.get_vocab_size() == len(old_ids) < before.get_vocab_size()
    for given in ([TEXTS[0]], [TEXTS[1]], TEXTS[:2]):
        ours, theirs = after.encode(*given), before.encode(*given)
        assert ours.tokens == theirs.tokens
        assert [old_ids[number] for number in ours.ids] == theirs.ids
        assert ours.type_ids == theirs.type_ids


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_encodable_stays_so(built, kind):
    """Words of known characters, most of them never seen, become no unknown token and lose no character."""
    before, after, _ = cut(built[kind], TEXTS[:1])
    rng = random.Random(0)
    letters = sorted({character for text in TEXTS for character in text if character.isalpha()})
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(300)] + " ".join(TEXTS).split()
    encodable = 0
    for word in words:
        old, new = (backend.encode(word, add_special_tokens=False).tokens for backend in (before, after))
        encodable += not {"[UNK]", "<unk>"} & {*old}
        assert spelled(new) == spelled(old)
    assert encodable > 200


def spelled(tokens: list[str]) -> str:
    return "".join(token.removeprefix("##") for token in tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_words_whose_pieces_are_gone_are_split_smaller(built, kind):
    before, after, _ = cut(built[kind], TEXTS[:1])
    lengths = [len(backend.encode(TEXTS[2]).ids) for backend in (before, after)]
    assert lengths[1] > lengths[0]


def test_bytes_outside_the_texts_come_back(built):
    _, after, _ = cut(built["bpe"], TEXTS[:1])
    after.decoder = tokenizers.decoders.ByteLevel()
    assert after.decode(after.encode("naïve ☃ 影").ids) == "naïve ☃ 影"


def test_the_parts_of_a_kept_merge_are_kept(built):
    """Keeping one long piece keeps all that it is merged from, and the merges in their order."""
    tokenizer = json.loads(built["bpe"])
    pieces = pieces_of(tokenizer)
    longest = max((piece for piece in pieces if piece.isalpha()), key=len)
    smaller, old_ids = keep_tokens(tokenizer, {pieces[longest]} | protected_ids(built["bpe"]))
    assert pieces[longest] in old_ids
    assert 0 < len(smaller["model"]["merges"]) < len(tokenizer["model"]["merges"])
    kept = [pair for pair in tokenizer["model"]["merges"] if pair in smaller["model"]["merges"]]
    assert smaller["model"]["merges"] == kept
    after = tokenizers.Tokenizer.from_str(json.dumps(smaller))
    assert after.encode(longest.replace("Ġ", " "), add_special_tokens=False).tokens == [longest]


def test_merges_written_as_text_are_read(built):
    """As files were until 2024."""
    tokenizer = json.loads(built["bpe"])
    old = json.loads(built["bpe"])
    old["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    del old["model"]["type"]
    assert read_tokenizer(json.dumps(old)) == old
    ids = protected_ids(built["bpe"]) | {300, 310}
    ours, theirs = (keep_tokens(content, ids)[0]["model"]["merges"] for content in (old, tokenizer))
    assert ours == [" ".join(pair) for pair in theirs]


def test_every_place_of_an_id_is_renumbered(built):
    """[unused0] goes, and all above it move down by one."""
    tokenizer = json.loads(built["wordpiece"])
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "[unused0]"]
    tokenizer["padding"] = {"pad_id": 4, "pad_token": "[SEP]"}
    smaller, old_ids = keep_tokens(tokenizer, {*range(len(pieces_of(tokenizer)))} - {1})
    assert old_ids[:5].tolist() == [0, 2, 3, 4, 5]
    assert {token["content"]: token["id"] for token in smaller["added_tokens"]} == {
        "[PAD]": 0,
        "[UNK]": 1,
        "[CLS]": 2,
        "[SEP]": 3,
    }
    assert {name: part["ids"] for name, part in smaller["post_processor"]["special_tokens"].items()} == {
        "[CLS]": [2],
        "[SEP]": [3],
    }
    assert smaller["padding"]["pad_id"] == 3
    assert tokenizer["padding"]["pad_id"] == 4, "what was given is not edited"


def test_a_sequence_of_processors_is_renumbered(built):
    tokenizer = json.loads(built["bpe"])
    single = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<mask>", 360]}
    tokenizer["post_processor"] = {"type": "Sequence", "processors": [single, {"type": "ByteLevel"}]}
    smaller, old_ids = keep_tokens(tokenizer, [])
    assert old_ids.tolist() == [0, 1, 2, 3, 360]
    assert smaller["post_processor"]["processors"][0] == single | {"cls": ["<mask>", 4]}


def test_an_added_token_comes_after_all_pieces(built):
    """The library numbers added tokens itself when it reads the file."""
    _, after, old_ids = cut(built["bpe"], TEXTS[:1])
    assert old_ids[-1] == 360
    assert after.token_to_id("<mask>") == len(old_ids) - 1


def test_the_unknown_piece_of_unigram_is_renumbered(built):
    tokenizer = json.loads(built["unigram"])
    smaller, old_ids = keep_tokens(tokenizer, protected_ids(built["unigram"]))
    assert smaller["model"]["vocab"][smaller["model"]["unk_id"]][0] == "<unk>"
    assert [entry[0] for entry in smaller["model"]["vocab"]] == [
        tokenizer["model"]["vocab"][number][0] for number in old_ids
    ]


def test_single_characters_bytes_and_pieces_that_alone_have_a_character_are_protected():
    pieces = ["[UNK]", "a", "##a", "b", "##b", "ab", "##ab", "aq", "##<0x0A>", "<0x0A>", "ba"]
    content = {
        "added_tokens": [{"id": 10, "content": "ba"}],
        "post_processor": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "vocab": {piece: number for number, piece in enumerate(pieces)},
        },
    }
    protected = {pieces[number] for number in protected_ids(json.dumps(content))}
    assert {"ab", "##ab"} & protected == set()
    assert {"[UNK]", "a", "##a", "b", "##b", "aq", "<0x0A>", "ba"} <= protected


def test_the_reference_model_s_tokenizer_keeps_its_letters():
    path = Path(__file__).parents[2] / "models" / "sst2-tiny" / "tokenizer.json"
    pieces = pieces_of(read_tokenizer(path))
    protected = protected_ids(path)
    assert {pieces[piece] for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "q", "##q", "?")} <= protected
    assert pieces["film"] not in protected


@pytest.mark.parametrize("content", ["[]", "vocab", '{"model": {}}'])
def test_what_is_no_tokenizer_is_refused(content):
    with pytest.raises(DataError, match=r"not the content of a Hugging Face tokenizer\.json: "):
        read_tokenizer(content)


def test_words_without_pieces_are_not_cut(letters):
    """Their special tokens are protected all the same: the map needs no new tokenizer."""
    path = letters / "tokenizer.json"
    assert protected_ids(path) == frozenset(range(14)), "all are special ([PAD] by its name) or letters"
    with pytest.raises(DataError, match="the tokenizer is WordLevel: needed WordPiece, BPE or Unigram"):
        keep_tokens(read_tokenizer(path), [0])


def test_tokens_are_counted_over_all_texts(letters):
    texts = (("a b a",), ("j",), ("a", "b b"))
    counts = count_tokens(Dataset("some", "all", texts * 700, None, None), load_tokenizer(letters))
    once = Counter([0, 4, 5, 4, 1, 0, 13, 1, 0, 4, 1, 5, 5, 1])
    assert counts.tolist() == [700 * once[number] for number in range(14)]
    assert counts.dtype == np.int64


def test_ready_inputs_have_no_texts_to_count(letters):
    dataset = Dataset("ready", "all", (), None, None, {"input_ids": np.zeros((2, 3), np.int64)})
    with pytest.raises(DataError, match="'ready' holds ready inputs: needed texts"):
        count_tokens(dataset, load_tokenizer(letters))


def test_growth_is_in_tokens(built, tmp_path):
    _, after, _ = cut(built["wordpiece"], TEXTS[:1])
    after.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "whole").mkdir()
    tokenizers.Tokenizer.from_str(built["wordpiece"]).save(str(tmp_path / "whole" / "tokenizer.json"))
    before, smaller = load_tokenizer(tmp_path / "whole"), load_tokenizer(tmp_path)
    dataset = Dataset("some", "all", tuple((text,) for text in TEXTS), None, None)
    lengths = [sum(len(row.ids) for row in each.encode(dataset.texts, 512)) for each in (before, smaller)]
    assert token_growth(dataset, before, smaller) == pytest.approx(lengths[1] / lengths[0] - 1)
    assert token_growth(dataset, before, smaller) > 0
