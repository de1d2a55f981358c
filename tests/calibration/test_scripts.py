"""The scripts of a vocabulary are read from its pieces, and one that loses them is named."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from onnxslim_bert.calibration.scripts import lost_scripts, script_of, script_tokens


@pytest.mark.parametrize(
    ("character", "script"),
    [
        ("a", "Latin"),
        ("É", "Latin"),
        ("д", "Cyrillic"),
        ("Ω", "Greek"),
        ("漢", "Han"),
        ("々", "Han"),
        ("ひ", "Hiragana"),
        ("カ", "Katakana"),
        ("한", "Hangul"),
        ("ع", "Arabic"),
        ("ש", "Hebrew"),
        ("क", "Devanagari"),
        ("ไ", "Thai"),
        ("ª", ""),
        ("\uff41", ""),
        ("7", ""),
        ("#", ""),
        ("▁", ""),
        ("😀", ""),
    ],
)
def test_the_script_of_a_letter(character, script):
    """By its name in Unicode."""
    assert script_of(character) == script


def test_pieces_of_one_letter_belong_to_no_script():
    """They are always kept, so that they say nothing of what is lost."""
    pieces = ["[PAD]", "a", "##b", "ab", "##cd", "д", "##да", "да", "1999", "漢", "漢字", "xдa"]
    content = json.dumps(
        {"added_tokens": [], "model": {"type": "WordPiece", "vocab": {p: n for n, p in enumerate(pieces)}}}
    )
    assert script_tokens(content) == {
        "Latin": {0, 3, 4, 11},
        "Cyrillic": {6, 7},
        "Han": {10},
    }


def test_bytes_are_read_as_their_letters():
    """Byte-level BPE writes д as two other letters."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["дадада дадада", "abab abab"], trainer)
    found = script_tokens(backend.to_str())
    assert set(found) == {"Latin", "Cyrillic"}
    texts = {backend.decode([number]).strip() for number in found["Cyrillic"]}
    assert "дадада" in texts


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        (range(100), {"Greek": 300}),  # none of it
        ([*range(100), 200, 201, 202], {"Greek": 300}),  # three stray words
        ([*range(100), 200, 201, 202, 203], {}),
        ([300], {"Latin": 100, "Greek": 300}),
    ],
)
def test_a_script_is_lost_when_a_hundredth_of_it_is_left(kept, lost):
    """A vocabulary with a few words of a script never served it."""
    scripts = {"Latin": range(100), "Greek": range(200, 500), "Thai": range(500, 519)}
    assert lost_scripts(scripts, kept) == lost
