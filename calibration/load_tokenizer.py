"""A tokenizer from its files: tokenizer.json alone, or what transformers can make of an older folder."""

import base64
import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onnxslim_bert.calibration.tokenizer import PlacedRow, Tokenizer, TokenRow
from onnxslim_bert.documents import check_place, read_object, read_whole
from onnxslim_bert.errors import DataError, one_line, shown
from onnxslim_bert.graph.model_folders import folder_with
from onnxslim_bert.graph.native_path import check_utf8
from onnxslim_bert.model.role_names import parse_named
from onnxslim_bert.native_output import native_output

# What a tokenizer without a limit, or with the placeholder 1e30, is capped to: BERT's number of positions.
DEFAULT_LENGTH = 512
DESCRIPTIONS = ("tokenizer_config.json", "config.json")  # without one, transformers knows no tokenizer's class
VOCABULARIES = (".json", ".model", ".txt")  # what files of tokenizers are called
MOST_UNTRAINED = 2  # tokens beside special ones, where there is no vocabulary
MOST_IDS = 1 << 24  # the library counts through all below the largest, used or not
MOST_ADDED = 64  # tokens, to a text or a pair
MOST_LETTERS = 64  # that a normalizer writes for one
MASK_TOKENS = ("[MASK]", "<mask>")
PAD_TOKENS = ("[PAD]", "<pad>", "<|padding|>", "<|endoftext|>")


def tokenizer_of(model: Path, given: Path | None = None, inputs: str = "") -> Tokenizer:
    """The tokenizer that is `given` (`load_tokenizer`), or that of the file `model`, in its folder.

    Where that folder is called onnx, as in a Hugging Face folder, the one above counts too. Raises DataError.
    """
    return load_tokenizer(given or folder_with(model, "tokenizer.json", *DESCRIPTIONS), inputs)


def load_tokenizer(path: Path, inputs: str = "") -> Tokenizer:
    """The tokenizer in a folder, or in a tokenizer.json; it reads local files only.

    inputs: the model's inputs that the user names by role, like `ids=in0,mask=in1` (`parse_named`). Raises DataError.
    """
    folder, file = (path, path / "tokenizer.json") if path.is_dir() else (path.parent, path)
    if not path.exists():
        raise DataError(f"tokenizer {path} does not exist: needed a folder with tokenizer.json, or that file")
    if path.is_file() and path.suffix != ".json":
        raise DataError(f"tokenizer {path} is not a tokenizer.json: needed that file or its folder")
    if file.exists() and not file.is_file():
        raise DataError(f"tokenizer {file} is no regular file: needed a tokenizer.json")
    read = _from_json(file, _config(folder)) if file.exists() else _from_folder(folder)
    return replace(read, inputs=parse_named(inputs))


def _from_json(file: Path, config: dict[str, Any]) -> Tokenizer:
    return replace(_described(read_whole(file, "a tokenizer.json"), file, config), file=file)


def _described(data: bytes, file: Path, config: dict[str, Any]) -> Tokenizer:
    """The tokenizer that the JSON of a tokenizer.json describes. file: where that comes from, for messages.

    config: the special tokens and the longest row, as tokenizer_config.json has them.
    """
    import tokenizers

    with _said(f"{file}: not a Hugging Face tokenizer.json"):
        backend = tokenizers.Tokenizer.from_buffer(data)
    # where a search by a regular expression takes too long, the library panics, which it tells the screen by itself
    hushed: Callable[[], AbstractContextManager[object]] = native_output if b'"Regex"' in data else nullcontext
    if not backend.get_vocab_size():
        raise DataError(f"{file}: has no tokens: needed the tokenizer that this model was trained with")
    _check_bounds(file, backend)
    padding = backend.padding or {}
    backend.no_padding()

    def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> list[TokenRow]:
        inputs = [row[0] if len(row) == 1 else row for row in texts]
        with _said(f"{file}: cannot read these texts"), hushed():
            backend.enable_truncation(max_length, strategy="longest_first")
            return [TokenRow(row.ids, row.type_ids) for row in backend.encode_batch_fast(inputs)]

    def windows(text: str, passage: str | None, max_length: int, shared: int) -> list[PlacedRow]:
        strategy = "longest_first" if passage is None else "only_second"
        room = "" if passage is None else f"question {text[:40]!r} fills {max_length} tokens, or "
        with _said(f"{room}{file}: cannot read these texts"), hushed():
            backend.enable_truncation(max_length, stride=shared, strategy=strategy)
            first = backend.encode(text) if passage is None else backend.encode(text, passage)
        # only the first window says whose each token is; all begin with the question and end with the same specials
        own = [place for place, owner in enumerate(first.sequence_ids) if owner == int(passage is not None)]
        begin, after = (own[0], len(first.ids) - own[-1] - 1) if own else (len(first.ids), 0)
        found: list[PlacedRow] = []
        for row in (first, *first.overflowing) if passage is not None else (first,):
            inside = range(begin, len(row.ids) - after)
            places = [span if index in inside else None for index, span in enumerate(row.offsets)]
            found.append(PlacedRow(row.ids, row.type_ids, places))
        return found

    # a space before a word is part of its first piece, which some tokenizers write by themselves
    spaced = _last_split(backend, "a a") != _last_split(backend, "a")

    def sentence(words: Sequence[str], max_length: int) -> PlacedRow:
        with _said(f"{file}: cannot read these texts"), hushed():
            backend.enable_truncation(max_length, strategy="longest_first")
            split = [f" {word}" if spaced and place else word for place, word in enumerate(words)]
            row = backend.encode(split, is_pretokenized=True)
        places = [None if owner is None else span for owner, span in zip(row.word_ids, row.offsets, strict=True)]
        seen = [None, *row.word_ids]  # what comes before each token
        first = [-1 if own is None or own == seen[place] else own for place, own in enumerate(row.word_ids)]
        return PlacedRow(row.ids, row.type_ids, places, first)

    def special(key: str, others: Sequence[str]) -> int | None:
        named = config.get(key)
        token = named.get("content") if isinstance(named, dict) else named
        known = (backend.token_to_id(name) for name in (token, *others) if isinstance(name, str))
        return next((number for number in known if number is not None), None)

    found, size, length = special("pad_token", PAD_TOKENS), backend.get_vocab_size(), config.get("model_max_length")
    pad_id, mask_id = padding.get("pad_id", 0) if found is None else found, special("mask_token", MASK_TOKENS)
    return Tokenizer(size, pad_id, _length(length), encode, windows=windows, sentence=sentence, mask_id=mask_id)


def _last_split(backend: Any, text: str) -> str:
    """The last piece of `text` before it is looked up in the vocabulary."""
    plain = backend.normalizer.normalize_str(text) if backend.normalizer else text
    splits = backend.pre_tokenizer.pre_tokenize_str(plain) if backend.pre_tokenizer else [(plain, (0, 0))]
    return str(splits[-1][0]) if splits else ""


def _check_bounds(file: Path, backend: Any) -> None:
    """Raise DataError for huge ids, many tokens added to every text, and many letters written for one."""
    token, largest = max(backend.get_vocab().items(), key=lambda item: item[1])
    if largest >= MOST_IDS:
        raise DataError(f"{file}: token {shown(token)} has id {largest:,}: ids of at most {MOST_IDS - 1:,} are read")
    added = max(backend.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
    if added > MOST_ADDED:
        raise DataError(f"{file}: adds {added} tokens to every text: more than {MOST_ADDED} fit no model")
    steps = json.loads(backend.to_str())
    grown = _growth(steps.get("normalizer")) * _growth(steps.get("pre_tokenizer"))
    if grown > MOST_LETTERS:
        raise DataError(f"{file}: writes up to {grown} letters for one: more than {MOST_LETTERS} are not read")


def _growth(step: Any) -> int:
    """How many letters a normalizer or pre-tokenizer writes for one, at most."""
    if not isinstance(step, dict):
        return 1
    own = 4 if step.get("type") == "ByteLevel" else len(step.get("content") or step.get("prepend") or "")
    if mapped := step.get("precompiled_charsmap"):  # of SentencePiece: a table's size, the table, and what it writes
        table = base64.b64decode(mapped)
        own = max(map(len, table[4 + int.from_bytes(table[:4], "little") :].decode(errors="replace").split("\0")))
    return math.prod((max(own, 1), *map(_growth, step.get("normalizers") or step.get("pretokenizers") or ())))


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn a fault of the library into a DataError that begins with `what`."""
    try:
        yield
    # A library raises bare Exception, or any other, for a fault of a file, and its own BaseException where it panics.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {one_line(error)}") from error


def _from_folder(folder: Path) -> Tokenizer:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))  # ours, among others
    found = ", ".join(names[:8]) or "nothing"
    needed = f"{folder} has no tokenizer.json (found {found})"
    if not any((folder / name).exists() for name in DESCRIPTIONS):
        raise DataError(f"{needed}: give --tokenizer FOLDER")
    for file in sorted(folder.iterdir()):
        if file.suffix in VOCABULARIES and file.exists():
            check_place(file, "a tokenizer's file")
    pieces = next((file.name for file in sorted(folder.iterdir()) if file.suffix == ".model"), "")
    if pieces and find_spec("sentencepiece") is None:
        hint = "pip install 'onnxslim-bert[sentencepiece]'"
        raise DataError(f"{needed}: add one, or let {pieces} be read: {hint}")
    if any("auto_map" in _config(folder, name) for name in DESCRIPTIONS):
        raise DataError(f"{needed}, but code of its own, which is never run: save it with tokenizer.json")
    check_utf8(folder, "transformers", DataError)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it warns on stderr where there is no PyTorch
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DataError(f"{needed}: add one, or pip install transformers to read older vocabularies") from error
    with _said(f"{needed}, nor what transformers can load: give --tokenizer FOLDER"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # without its files transformers makes one to be trained, of special tokens alone: all words are the same
    own = len(tokenizer) - len({*tokenizer.all_special_ids})
    if own <= MOST_UNTRAINED and not any((folder / name).exists() for name in tokenizer.vocab_files_names.values()):
        raise DataError(f"{needed}, nor a vocabulary: add the tokenizer's files, or give --tokenizer FOLDER")

    backend = getattr(tokenizer, "backend_tokenizer", None)  # None for tokenizers in Python, like BertJapanese
    if backend is not None:
        special = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("pad", "mask")}
        return _described(backend.to_str().encode(), folder, special | {"model_max_length": tokenizer.model_max_length})

    def encode(texts: Sequence[tuple[str, ...]], max_length: int) -> list[TokenRow]:
        with _said(f"the tokenizer in {folder} cannot read these texts"):
            rows = [tokenizer(*row, truncation="longest_first", max_length=max_length) for row in texts]
        return [TokenRow(row["input_ids"], row.get("token_type_ids") or [0] * len(row["input_ids"])) for row in rows]

    return Tokenizer(len(tokenizer), tokenizer.pad_token_id or 0, _length(tokenizer.model_max_length), encode)


def _config(folder: Path, name: str = DESCRIPTIONS[0]) -> dict[str, Any]:
    file = folder / name
    if not file.exists():
        return {}
    return read_object(file)


def _length(limit: Any) -> int:
    return int(limit) if type(limit) in (int, float) and 1 <= limit < 1e6 else DEFAULT_LENGTH
