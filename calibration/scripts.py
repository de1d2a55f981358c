"""Writing systems of a vocabulary: which of them texts of one language leave without tokens."""

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

from onnxslim_bert.calibration.vocabulary import pieces_of, read_tokenizer

FEWEST = 20  # tokens of two letters or more that a vocabulary that serves a script has
LOST = 0.01  # share of a script's tokens up to which it counts as lost
# First words of Unicode's names of letters that are not the script's own name.
SCRIPTS = {"CJK": "HAN", "IDEOGRAPHIC": "HAN", "KATAKANA-HIRAGANA": "HIRAGANA"}
NO_SCRIPT = frozenset(
    {"MODIFIER", "MICRO", "FEMININE", "MASCULINE", "SUPERSCRIPT", "SUBSCRIPT", "MATHEMATICAL", "FULLWIDTH"}
)


def lost_scripts(scripts: Mapping[str, Collection[int]], kept: Collection[int]) -> dict[str, int]:
    """The scripts of which next to nothing but single letters is among the ids `kept`, each with its tokens.

    scripts: as `script_tokens` gives them. A script of fewer than FEWEST tokens is not served by the vocabulary anyway.
    Example: of 300 Greek tokens 2 are kept: {"Greek": 300}.
    """
    held = frozenset(kept)
    return {
        script: len(ids)
        for script, ids in scripts.items()
        if len(ids) >= FEWEST and sum(number in held for number in ids) <= LOST * len(ids)
    }


def script_tokens(tokenizer_json: Path | str) -> dict[str, frozenset[int]]:
    """The ids of the pieces of two letters or more by their script, like "Latin" or "Cyrillic".

    A piece of several scripts counts to that of most of its letters. Pieces of byte-level BPE are read as the bytes
    that they stand for. tokenizer_json: the file's path, or its content. Raises DataError when it is none.
    """
    tokenizer = read_tokenizer(tokenizer_json)
    in_bytes = '"ByteLevel"' in json.dumps([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")])
    found: dict[str, set[int]] = {}
    for piece, number in pieces_of(tokenizer).items():
        letters = [script_of(letter) for letter in (_decoded(piece) if in_bytes else piece)]
        scripts = Counter(filter(None, letters))
        if scripts.total() > 1:
            found.setdefault(scripts.most_common(1)[0][0], set()).add(number)
    return {script: frozenset(ids) for script, ids in found.items()}


@cache
def script_of(character: str) -> str:
    """The script of a letter, "" for what is no letter: "Cyrillic" for д, "Han" for 漢.

    It is the first word of the letter's Unicode name, which is the script's but for a few.
    """
    if not unicodedata.category(character).startswith("L"):
        return ""
    first = unicodedata.name(character, "").split(" ")[0]
    return "" if first in NO_SCRIPT else SCRIPTS.get(first, first).capitalize()


def _decoded(piece: str) -> str:
    """The text of a piece of byte-level BPE; bytes of a letter that is cut in two are left out."""
    return bytes(_bytes()[letter] for letter in piece if letter in _bytes()).decode("utf-8", "ignore")


@cache
def _bytes() -> dict[str, int]:
    """The byte that each letter of byte-level BPE stands for: itself where it prints, else one of the next above 255.

    Radford et al. 2019, https://github.com/openai/gpt-2
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [number for number in range(256) if number not in printed]
    letters = {chr(number): number for number in printed}
    return letters | {chr(256 + place): number for place, number in enumerate(others)}
