"""The tokenizer is read from tokenizer.json alone, cuts pairs fairly, and says what a folder lacks."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.errors import DataError


def test_a_folder_and_its_file_give_the_same_tokenizer(letters: Path) -> None:
    for path in (letters, letters / "tokenizer.json"):
        tokenizer = load_tokenizer(path)
        assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.max_length) == (14, 3, 20)


def test_rows_have_special_tokens_segments_and_no_padding(letters: Path) -> None:
    single, pair = load_tokenizer(letters).encode([("a b c",), ("a", "b q")], 20)
    assert single == ([0, 4, 5, 6, 1], [0] * 5)
    assert pair == ([0, 4, 1, 5, 2, 1], [0, 0, 0, 1, 1, 1])


def test_the_longer_text_of_a_pair_is_cut_first(letters: Path) -> None:
    """Three of four letters go from the long text, none from the short one."""
    (row,) = load_tokenizer(letters).encode([("a b c d e", "f g")], 7)
    assert row.ids == [0, 4, 5, 1, 9, 10, 1]


def test_rows_are_never_longer_than_the_tokenizer_allows(letters: Path) -> None:
    (row,) = load_tokenizer(letters).encode([("a " * 50,)], 128)
    assert len(row.ids) == 20


def test_the_placeholder_for_no_limit_is_capped(letters: Path, tmp_path: Path) -> None:
    """transformers writes 1e30 where nothing was said."""
    shutil.copy(letters / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": int(1e30)}))
    assert load_tokenizer(tmp_path).max_length == 512


def test_padding_and_truncation_saved_in_the_file_are_ignored(letters: Path, tmp_path: Path) -> None:
    """sentence-transformers saves both: rows would come out padded to 128."""
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(letters / "tokenizer.json"))
    backend.enable_padding(length=128, pad_id=3, pad_token="[PAD]")
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    (row,) = load_tokenizer(tmp_path).encode([("a b c",)], 20)
    assert row.ids == [0, 4, 5, 6, 1]


def test_an_older_folder_is_read_by_transformers(tmp_path: Path) -> None:
    """A vocab.txt and a config.json, as in 2019."""
    pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad")))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.max_length) == (7, 0, 512)
    assert tokenizer.encode([("good",), ("good", "Bad good")], 6) == [
        ([2, 5, 3], [0, 0, 0]),
        ([2, 5, 3, 6, 5, 3], [0, 0, 0, 1, 1, 1]),
    ]


def test_what_transformers_thinks_of_pytorch_is_not_on_the_screen(tmp_path: Path) -> None:
    """It warns when it is imported where there is none, which stood beside every line of ours."""
    pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad")))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    code = "import sys, pathlib; from onnxslim_bert.calibration.load_tokenizer import load_tokenizer; "
    code += "load_tokenizer(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "deberta-v2", "t5"])
def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path, kind: str) -> None:
    """transformers reads one from config.json alone, in which all words are the same token."""
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(DataError, match=r"has no tokenizer.json \(found config.json\), nor .*give --tokenizer FOLDER"):
        load_tokenizer(tmp_path)


def test_tokens_of_an_older_folder_have_places_too(tmp_path: Path) -> None:
    """Words, windows of passages and masks are read from vocab.txt as from tokenizer.json."""
    pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##ly"))
    )
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = load_tokenizer(tmp_path)
    (words,) = tokenizer.encode_words([("badly", "Good")], 16)
    assert words.ids == [2, 6, 7, 5, 3]
    assert list(words.words) == [-1, 0, -1, 1, -1]
    windows = tokenizer.encode_passage("good", "bad bad bad badly", 8)
    assert [row.ids for row in windows] == [[2, 5, 3, 6, 6, 6, 6, 3], [2, 5, 3, 6, 6, 7, 3]]
    assert windows[1].places == [None, None, None, (8, 11), (12, 15), (15, 17), None]
    assert (tokenizer.mask_id, tokenizer.pad_id) == (4, 0)


def test_a_vocabulary_of_sentencepiece_is_read_by_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """spiece.model, as in ALBERT's folders of 2020; where the library is missing, one line says what to install."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs sentencepiece")
    pytest.importorskip("transformers")
    texts = [f"the {first} {second} sat on a {first}" for first in ("cat", "dog", "hen") for second in ("old", "red")]
    special = {
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": -1,
        "eos_id": -1,
        "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"],
    }
    with (tmp_path / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, vocab_size=22, minloglevel=9, **special
        )
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    tokenizer = load_tokenizer(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    (row,) = tokenizer.encode([("the old cat",)], 32)
    assert row.ids == [2, *pieces.encode("the old cat"), 3]
    assert tokenizer.encode_passage("the cat", "the old hen", 32)[0].places.count(None) > 3
    monkeypatch.setattr("onnxslim_bert.calibration.load_tokenizer.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"let spiece.model be read: pip install 'onnxslim-bert\[sentencepiece\]'"):
        load_tokenizer(tmp_path)


def test_what_is_no_tokenizer_is_refused(letters: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist: needed a folder with tokenizer.json"):
        load_tokenizer(tmp_path / "missing")
    (tmp_path / "vocab.bin").write_bytes(b"1")
    with pytest.raises(DataError, match=r"vocab.bin is not a tokenizer.json"):
        load_tokenizer(tmp_path / "vocab.bin")
    (tmp_path / ".onnxslim-made.onnx").mkdir()  # a job's own folder, which nobody put there
    with pytest.raises(DataError, match=r"has no tokenizer.json \(found vocab.bin\)"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"not a Hugging Face tokenizer.json"):
        load_tokenizer(tmp_path)
    shutil.copy(letters / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config.json is no JSON"):
        load_tokenizer(tmp_path)


def test_importing_the_data_side_loads_nothing_heavy(letters: Path) -> None:
    """transformers and pyarrow stay out even when a tokenizer.json is read and used."""
    program = (
        "import sys; from pathlib import Path\n"
        "from onnxslim_bert.calibration import batches, load_tokenizer, loading\n"
        "assert 'tokenizers' not in sys.modules\n"
        "load_tokenizer.load_tokenizer(Path(sys.argv[1])).encode([('a b',)], 8)\n"
        "print(sorted({'transformers', 'pyarrow', 'torch', 'huggingface_hub', 'onnxruntime'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program, letters], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\u2603")[0][0]
BY_SPACE = ["Ġgood", "Ġ", BYTES, "Ġman"]
# How texts are split, the pieces that there are, with ids from 1, and the ids and marks of the four words below.
SPLITS = {
    "at spaces": (pre_tokenizers.BertPreTokenizer(), ["good", "\u2603", "man"], [1, 2, 3], [0, 1, 3]),
    "spaces as letters": (
        pre_tokenizers.Metaspace(),
        ["▁good", "▁", "\u2603", "▁man"],
        [1, 2, 3, 4],
        [0, 1, -1, 3],
    ),
    "bytes": (pre_tokenizers.ByteLevel(add_prefix_space=True), BY_SPACE, [1, 2, 3, 4], [0, 1, -1, 3]),
    "no first space": (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        ["good", *BY_SPACE[1:]],
        [1, 2, 3, 2, 4],
        [0, 1, -1, 2, 3],
    ),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_the_first_piece_of_a_word_is_its_own(tmp_path: Path, kind: str) -> None:
    """Also where that is a space alone, which stands before the word. A word without pieces has no mark."""
    splits, pieces, ids, words = SPLITS[kind]
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in pieces)], 0))
    backend.normalizer, backend.pre_tokenizer = normalizers.Replace("\u200b", ""), splits
    backend.save(str(tmp_path / "tokenizer.json"))
    (row,) = load_tokenizer(tmp_path).encode_words([("good", "\u2603", "\u200b", "man")], 20)
    assert (row.ids, list(row.words)) == (ids, words)


def test_sentences_that_lose_tokens_are_cut(letters: Path) -> None:
    """A word of which nothing is left for the tokenizer is no loss."""
    rows = [("a", "b"), ("a", " ", "b"), ("a", "b", "c")]
    assert load_tokenizer(letters).words_are_cut(rows, 4) == [False, False, True]
