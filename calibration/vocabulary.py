"""A tokenizer cut down to some of its tokens: functions on the content of tokenizer.json, and counts of tokens."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import PAD_TOKENS
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.documents import read_object
from onnxslim_bert.errors import DataError

BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # a piece that SentencePiece falls back to
COUNTED_AT_ONCE = 1024  # rows tokenized together


def count_tokens(dataset: Dataset, tokenizer: Tokenizer) -> Array:
    """How often each id occurs in the texts of `dataset`, special tokens included, int64 [vocabulary].

    Rows are cut to the tokenizer's own length. Raises DataError when the set holds ready inputs instead of texts.
    """
    if dataset.feeds is not None:
        raise DataError(f"'{dataset.name}' holds ready inputs: needed texts to count tokens in")
    dataset = dataset.alone()
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(dataset), COUNTED_AT_ONCE):
        for row in tokenizer.encode(dataset.texts[start : start + COUNTED_AT_ONCE], tokenizer.max_length):
            counts += np.bincount(row.ids, minlength=len(counts))
    return counts


def token_growth(dataset: Dataset, before: Tokenizer, after: Tokenizer) -> float:
    """How many more tokens `after` makes of the texts than `before`: 0.02 for 2 %."""
    return float(count_tokens(dataset, after).sum() / count_tokens(dataset, before).sum() - 1)


def protected_ids(tokenizer_json: Path | str) -> frozenset[int]:
    """The ids that a smaller vocabulary must keep, so that what was encodable stays so.

    Special and added tokens; pieces of one character, at the start of a word and inside; byte pieces; and pieces with
    a character that has no piece of its own. Example: "ab" may go when there are pieces "a" and "##b", and must stay
    when there is no "##b". A WordLevel tokenizer, whose words are not made of pieces, keeps none of the last kind.

    tokenizer_json: the file's path, or its content.
    """
    tokenizer = read_tokenizer(tokenizer_json)
    vocabulary = pieces_of(tokenizer)
    spelled = {piece: _characters(piece, tokenizer["model"]) for piece in vocabulary}
    needed = {piece for piece, parts in spelled.items() if len(parts) == 1 or BYTE.fullmatch(piece)}
    if _kind(tokenizer["model"]) != "WordLevel":
        needed |= {piece for piece, parts in spelled.items() if any(part not in vocabulary for part in parts)}
    return frozenset({vocabulary[piece] for piece in needed} | _special_ids(tokenizer))


def read_tokenizer(tokenizer_json: Path | str) -> dict[str, Any]:
    """The content of a tokenizer.json, given by path or as text. Raises DataError when it is none."""
    try:
        read = read_object(tokenizer_json) if isinstance(tokenizer_json, Path) else json.loads(tokenizer_json)
        tokenizer: dict[str, Any] = read
        pieces_of(tokenizer)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"not the content of a Hugging Face tokenizer.json: {error}") from error
    return tokenizer


def pieces_of(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The id of every piece of a parsed tokenizer.json; added tokens have theirs in `added_tokens`."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary
    return {piece: number for number, (piece, _) in enumerate(vocabulary)}


def keep_tokens(tokenizer: Mapping[str, Any], kept: Iterable[int]) -> tuple[dict[str, Any], Array]:
    """A smaller copy of a parsed tokenizer.json, with the tokens `kept` only, and the old id of each of its ids, [new].

    The tokens get new ids in their old order: of 0, 5 and 9, token 5 becomes 1, and [0, 5, 9] are the old ids.
    A text all of whose tokens are kept is split as before. A word whose pieces are gone is split into smaller ones.
    Kept in any case: special and added tokens, and in BPE the pieces that kept ones are merged from. Raises DataError
    for a WordLevel tokenizer, whose words have no smaller pieces.
    """
    model, vocabulary = tokenizer["model"], pieces_of(tokenizer)
    if (kind := _kind(model)) not in ("WordPiece", "BPE", "Unigram"):
        raise DataError(f"the tokenizer is {kind}: needed WordPiece, BPE or Unigram, whose words have smaller pieces")
    wanted = {*kept} | _special_ids(tokenizer)
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", ())]
    prefix = len(model.get("continuing_subword_prefix") or "")
    joined = [(vocabulary[a], vocabulary[b], vocabulary[a + b[prefix:]]) for a, b in merges]
    _close(wanted, joined)

    known = {*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])}
    old_ids = sorted(wanted & known)
    new = {number: index for index, number in enumerate(old_ids)}
    smaller: dict[str, Any] = dict(model)
    if isinstance(model["vocab"], dict):
        smaller["vocab"] = {piece: new[number] for piece, number in vocabulary.items() if number in new}
    else:
        smaller["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
    if "merges" in model:
        whole = (all(number in new for number in numbers) for numbers in joined)
        smaller["merges"] = [pair for pair, is_whole in zip(model["merges"], whole, strict=True) if is_whole]
    if model.get("unk_id") is not None:
        smaller["unk_id"] = new[model["unk_id"]]
    changed = dict(tokenizer) | {
        "model": smaller,
        "added_tokens": [token | {"id": new[token["id"]]} for token in tokenizer["added_tokens"]],
        "post_processor": _renumbered(tokenizer.get("post_processor"), new),
    }
    if padding := tokenizer.get("padding"):
        changed["padding"] = padding | {"pad_id": new[padding["pad_id"]]}
    return changed, np.array(old_ids)


def _kind(model: Mapping[str, Any]) -> str:
    """WordPiece, BPE, Unigram or WordLevel; files from before 2021 do not say which."""
    if "type" in model:
        return str(model["type"])
    return "BPE" if "merges" in model else "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _close(wanted: set[int], joined: list[tuple[int, int, int]]) -> None:
    """Add to `wanted` both parts of every merge (left, right, result) whose result is wanted."""
    size = -1
    while size != len(wanted):
        size = len(wanted)
        for left, right, result in reversed(joined):
            if result in wanted:
                wanted |= {left, right}


def _characters(piece: str, model: Mapping[str, Any]) -> list[str]:
    """The pieces of one character that spell `piece`: "##ab" by "##a" and "##b"."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    is_inside = bool(prefix) and piece.startswith(prefix) and piece != prefix
    is_last = bool(suffix) and piece.endswith(suffix) and piece != suffix
    body = piece.removeprefix(prefix if is_inside else "").removesuffix(suffix if is_last else "")
    spelled = [(prefix if is_inside or i else "") + character for i, character in enumerate(body)]
    return [*spelled[:-1], spelled[-1] + (suffix if is_last else "")] if spelled else []


def _special_ids(tokenizer: Mapping[str, Any]) -> set[int]:
    """Added tokens, the unknown one, padding, and what is put around texts."""
    model, pieces = tokenizer["model"], pieces_of(tokenizer)
    named = (pieces.get(name) for name in (model.get("unk_token"), *PAD_TOKENS))
    numbered = (model.get("unk_id"), (tokenizer.get("padding") or {}).get("pad_id"))
    found = {token["id"] for token in tokenizer["added_tokens"]} | {*_template_ids(tokenizer.get("post_processor"))}
    return found | {number for number in (*named, *numbered) if number is not None}


def _template_ids(part: Any) -> Iterator[int]:
    """Every token id in a post-processor."""
    if isinstance(part, dict):
        yield from part["ids"] if _is_template(part) else itertools.chain(*map(_template_ids, part.values()))
    elif isinstance(part, list):
        yield from [part[1]] if _is_pair(part) else itertools.chain(*map(_template_ids, part))


def _renumbered(part: Any, new: Mapping[int, int]) -> Any:
    """A post-processor with new ids."""
    if isinstance(part, dict):
        if _is_template(part):
            return part | {"ids": [new[number] for number in part["ids"]]}
        return {name: _renumbered(value, new) for name, value in part.items()}
    if isinstance(part, list):
        return [part[0], new[part[1]]] if _is_pair(part) else [_renumbered(value, new) for value in part]
    return part


def _is_template(part: Mapping[str, Any]) -> bool:
    """Whether `part` is {"ids": [7], "tokens": ["[SEP]"], ...}, as in templates."""
    return "ids" in part and "tokens" in part


def _is_pair(part: list[Any]) -> bool:
    """Whether `part` is ["[SEP]", 7], as in the processors of BERT and RoBERTa."""
    return len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int)
